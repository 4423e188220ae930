"""How the updates of a round become one: the rules by name, what each withstands, and what it costs."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mumc_model.errors import ConfigError
from server.config import MergeConfig
from server.geometry import inner_products, norms, squared_distances
from server.merge import combination, weighted_mean
from server.order_statistics import middle_mean
from server.spool import Update

Array = np.ndarray[Any, Any]
Merged = dict[str, Array]


@dataclass(frozen=True)
class Rule:
    """One way to merge, as docs/robustness.md shows it."""

    merge: Callable[[Sequence[Update], Sequence[float], MergeConfig], Merged]
    defends: str
    """Against what, with f for `merge.faulty`."""
    work: str
    """Passes over the updates, and arithmetic."""
    price: str
    """What it costs a model whose sites are all honest."""
    least: tuple[int, int]
    """With f sites that may be hostile it takes `least[0] * f + least[1]` updates."""
    single: bool
    """Whether it needs single updates, and so excludes secure aggregation."""

    def fewest(self, faulty: int) -> int:
        """Updates that it takes to withstand so many hostile ones."""
        return self.least[0] * faulty + self.least[1]


def merge(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    """One packed update, by type: float32, and float64 for float64 weights.

    The order in which the updates are given changes no bit of it. No rule holds more than the result, and a few blocks
    of every update.

    Raises:
        ConfigError: there are fewer updates than the rule takes.
    """
    check_rule(config, len(updates))
    ordered = sorted(zip(updates, weights, strict=True), key=lambda pair: pair[0].site)
    rule = RULES[config.rule]
    return rule.merge([update for update, _ in ordered], [weight for _, weight in ordered], config)


def check_rule(config: MergeConfig, sites_min: int) -> None:
    """Return only if the rule withstands `merge.faulty` hostile sites in a round of so few updates.

    Raises:
        ConfigError: it cannot.
    """
    fewest = RULES[config.rule].fewest(config.faulty)
    if sites_min < fewest:
        raise ConfigError(
            f"merge.rule is {config.rule}, which takes at least {fewest} updates to withstand merge.faulty="
            f"{config.faulty}, but a round may have as few as {sites_min}; raise federation.min_sites to {fewest}, "
            "lower merge.faulty, or choose another rule"
        )


def krum_scores(distances: Array, faulty: int) -> Array:
    """Of each of n updates the sum of squared distances to its n - faulty - 2 nearest, (n,); the lower, the better.

    Source: Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017, section 4.
    """
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    scores: Array = np.sort(others, axis=1)[:, : len(others) - faulty - 2].sum(axis=1)
    return scores


def _mean(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    return weighted_mean(updates, weights)


def _norm_bounded(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    lengths, total = norms(updates), math.fsum(weights)
    bound = config.norm_bound or statistics.median(lengths)
    factors = [min(1.0, bound / length) if length else 1.0 for length in lengths]
    return combination(updates, [weight / total * factor for weight, factor in zip(weights, factors, strict=True)])


def _median(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    return middle_mean(updates, (len(updates) - 1) // 2)


def _trimmed_mean(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    return middle_mean(updates, config.faulty)


def _krum(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    return _best(updates, weights, config.faulty, 1)


def _multi_krum(updates: Sequence[Update], weights: Sequence[float], config: MergeConfig) -> Merged:
    return _best(updates, weights, config.faulty, len(updates) - config.faulty)


def _best(updates: Sequence[Update], weights: Sequence[float], faulty: int, count: int) -> Merged:
    """The weighted mean of so many updates with the lowest scores; of equal ones the first by name."""
    scores = krum_scores(squared_distances(inner_products(updates)), faulty)
    chosen = np.argsort(scores, kind="stable")[:count]
    return weighted_mean([updates[place] for place in chosen], [weights[place] for place in chosen])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mean": Rule(
            _mean,
            defends="nothing by itself: one site moves the mean by its share of what it sends. The screens and the "
            "enrolled weights bound both",
            work="1 pass",
            price="nothing",
            least=(0, 1),
            single=False,
        ),
        "norm_bounded": Rule(
            _norm_bounded,
            defends="updates that are too long: none moves the mean further than its share of the bound. Not their "
            "direction",
            work="2 passes: norms, mean",
            price="little: longer updates count less. With `norm_bound=0`, half of the sites are shortened to the "
            "median norm every round",
            least=(2, 1),
            single=True,
        ),
        "median": Rule(
            _median,
            defends="f of n > 2f, of any size: every coordinate lies between honest ones",
            work="1 pass; about n log2(n)^2 / 4 comparisons a value",
            price="weights are not used, and what only a minority of sites has learned is lost. Its error is that of a "
            "mean of about two thirds of the sites, if they are alike; where they differ it is biased",
            least=(2, 1),
            single=True,
        ),
        "trimmed_mean": Rule(
            _trimmed_mean,
            defends="f of n > 2f, of any size: every coordinate lies between honest ones",
            work="1 pass; about n log2(n)^2 / 4 comparisons a value",
            price="weights are not used, and 2f of n values of every coordinate are lost, honest ones too",
            least=(2, 1),
            single=True,
        ),
        "krum": Rule(
            _krum,
            defends="f of n >= 2f + 3, of any size: the update that lies nearest to its n - f - 2 nearest is taken. "
            "Small changes in few coordinates pass",
            work="2 passes: n (n + 1) / 2 inner products, then a copy",
            price="most: one site's update stands for the round, and its noise is averaged with nobody's",
            least=(2, 3),
            single=True,
        ),
        "multi_krum": Rule(
            _multi_krum,
            defends="f of n >= 2f + 3 that lie far from the others: the n - f best by Krum's score are averaged, by "
            "weight. Hostile updates that lie near honest ones can be among them",
            work="2 passes: n (n + 1) / 2 inner products, then a mean",
            price="f updates a round, honest ones too, and rather those of sites that are unlike the others",
            least=(2, 3),
            single=True,
        ),
    }
)


def table() -> str:
    """The rules in Markdown, as docs/robustness.md shows them."""
    lines = [
        "| `merge.rule` | withstands | work | what it costs | fewest updates | under masks |",
        "|---|---|---|---|---|---|",
    ]
    for name, rule in RULES.items():
        fewest = f"{rule.least[0]}f + {rule.least[1]}" if rule.least[0] else str(rule.least[1])
        masked = "no" if rule.single else "yes"
        lines.append(f"| `{name}` | {rule.defends} | {rule.work} | {rule.price} | {fewest} | {masked} |")
    return "\n".join(lines)
