"""What one run is, as its operator configures it: frozen, checked once, and free of torch."""

import re
from dataclasses import dataclass, field
from typing import Literal

from mumc_model.config import InitConfig, Recipe
from mumc_model.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """Who takes part, for how long, and what happens after the last round."""

    rounds: int
    """Rounds of federated pre-training; 0 goes straight to fine-tuning."""
    local_steps: int
    """Optimiser steps at each site in each round."""
    sites: int
    """Sites that are expected."""
    min_sites: int
    """Fewest sites whose updates make a round."""
    wait_s: float = 600.0
    """How long to wait for the expected sites to come online."""
    rejoin_s: float = 60.0
    """How long a later round waits for a site that was lost; one whose machine restarts needs about so long."""
    round_timeout_s: float = 7200.0
    """After this long a silent site has lost the round."""
    at_once: int = 0
    """So many sites hold an order at a time, and the next is asked when one has answered; 0 asks all. Fewer keep a
    small server from drowning in updates that arrive together, and make a round longer."""
    attempts: int = 3
    """So many attempts in a row in which too few sites answered end the run; `--resume` goes on from there."""
    late: Literal["refuse", "discount"] = "refuse"
    """An update that comes after its round: refused, or used in the next one in which its site has no newer one."""
    staleness: float = 0.5
    """The weight of an update that is `k` rounds late is divided by `(1 + k)` to the power of this."""
    keep_weights: int = 1
    """The merged weights of so many last rounds stay on the disk; with more than 1 a site can fine-tune an ensemble."""
    final: Literal["finetune", "evaluate", "rehearse", "statistics", "none"] = "finetune"
    """After the last round each site fine-tunes its own answer decoder on the merged weights; or evaluates again the
    model that the earlier run of this `run_id` left there; or trains two steps on synthetic data, of which nothing is
    kept; or has its counts summed under masks (`mumc-server statistics`), without any weights; or nothing."""
    only: tuple[str, ...] = ()
    """Names of the enrolled sites that are asked; empty asks all."""

    def __post_init__(self) -> None:
        """Refuse a federation that cannot run."""
        _require(self.rounds >= 0, f"federation.rounds is {self.rounds}; choose 0 or more")
        _require(
            self.rounds > 0 or self.final != "none",
            "federation.rounds is 0 and federation.final is none, so there is nothing to do; change one of them",
        )
        _require(
            self.rounds == 0 or self.final not in ("evaluate", "rehearse", "statistics"),
            f"federation.final is {self.final}, which goes with no round of training, but federation.rounds is "
            f"{self.rounds}; set it to 0",
        )
        _require(
            self.rounds == 0 or self.local_steps >= 1,
            f"federation.local_steps is {self.local_steps}; a round needs at least 1",
        )
        _require(
            1 <= self.min_sites <= self.sites,
            f"federation.min_sites is {self.min_sites}; choose it from 1 to federation.sites, {self.sites}",
        )
        _require(
            not self.only or self.sites <= len(set(self.only)),
            f"federation.only names {len(set(self.only))} sites, but federation.sites is {self.sites}; make it fewer",
        )
        for name in ("wait_s", "round_timeout_s"):
            _require(getattr(self, name) > 0, f"federation.{name} is {getattr(self, name)}; choose seconds above 0")
        _require(self.rejoin_s >= 0, f"federation.rejoin_s is {self.rejoin_s}; choose 0 or more seconds")
        _require(self.at_once >= 0, f"federation.at_once is {self.at_once}; choose 0 or more")
        _require(self.attempts >= 1, f"federation.attempts is {self.attempts}; choose 1 or more")
        _require(self.keep_weights >= 1, f"federation.keep_weights is {self.keep_weights}; choose 1 (the last) or more")
        _require(self.staleness >= 0, f"federation.staleness is {self.staleness}; choose 0 or more")


@dataclass(frozen=True, kw_only=True)
class SecaggConfig:
    """Secure aggregation: whether rounds go under masks, and how updates become integers."""

    mode: Literal["auto", "required", "off"] = "auto"
    """`auto` masks where a federation has enough enrolled sites; `required` refuses a run that cannot; or `off`."""
    clip: float = 1.0
    """Largest change of a weight in a round that a site sends; what lies beyond is cut to it."""
    tolerance: float = 1e-6
    """Most that a weight of the mean may be off by rounding; decides between words of 32 and 64 bits."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """Of an update's values to whole steps; `stochastic` is unbiased."""
    stage_timeout_s: float = 300.0
    """After this long a silent site has lost a stage in which nobody trains."""

    def __post_init__(self) -> None:
        """Refuse ranges that mean nothing."""
        for name in ("clip", "tolerance", "stage_timeout_s"):
            value = getattr(self, name)
            _require(0 < value < float("inf"), f"secagg.{name} is {value}; choose a number above 0")


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """What the server does with the weighted mean of the sites' differences."""

    optimizer: Literal["none", "momentum", "adam", "yogi"] = "none"
    """`none` adopts the mean (FedAvg); the others are FedAvgM, FedAdam and FedYogi."""
    lr: float = 1.0
    """The server's learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and second moment; `momentum` uses the first alone."""
    tau: float = 1e-3
    """How far `adam` and `yogi` adapt: the smaller, the further."""
    max_examples: int = 1_000_000
    """The most examples that one site may claim; its weight in the mean grows with them."""

    def __post_init__(self) -> None:
        """Refuse rates and limits outside their range."""
        _require(self.lr > 0, f"strategy.lr is {self.lr}; choose it above 0")
        _require(all(0 <= b < 1 for b in self.betas), f"strategy.betas are {list(self.betas)}; choose them in [0, 1)")
        _require(self.tau > 0, f"strategy.tau is {self.tau}; choose it above 0")
        _require(self.max_examples >= 1, f"strategy.max_examples is {self.max_examples}; choose at least 1")


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """How the sites' updates travel to the server; what it costs and loses stands in docs/results.md."""

    kind: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """`auto` is the smallest that loses nothing measurable: `int8`, and `float32` under masks, which need it."""
    block: int = 256
    """Values that share a scale under `int8`; a power of two."""

    def __post_init__(self) -> None:
        """Refuse blocks that no site takes."""
        _require(
            self.block in (1 << bits for bits in range(4, 17)),
            f"codec.block is {self.block}; choose a power of two from 16 to 65536",
        )


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """How the updates of a round become one."""

    rule: Literal["mean", "norm_bounded", "median", "trimmed_mean", "krum", "multi_krum"] = "mean"
    """All but `mean` need single updates, and so no secure aggregation; see docs/robustness.md."""
    faulty: int = 1
    """So many sites may be faulty or hostile: what `trimmed_mean` cuts off at each end, what `krum` reckons with."""
    norm_bound: float = 0.0
    """Longest update (L2) that `norm_bounded` takes as it is; 0 takes the median of the round."""

    def __post_init__(self) -> None:
        """Refuse counts and bounds that mean nothing."""
        _require(self.faulty >= 0, f"merge.faulty is {self.faulty}; choose 0 or more")
        _require(0 <= self.norm_bound < float("inf"), f"merge.norm_bound is {self.norm_bound}; choose 0 or more")


@dataclass(frozen=True, kw_only=True)
class ScreenConfig:
    """Which updates are refused at the deadline of a plain round, when all of them can be compared."""

    norm_factor: float = 5.0
    """An update longer (L2) than so many times what is usual among the others, and in earlier rounds, is refused; 0
    refuses none."""
    free_riders: bool = True
    """Refuse updates that are nothing, what the server sent, another site's update, or noise, and such as point against
    most others."""
    history: int = 5
    """Earlier rounds that say what is usual."""

    def __post_init__(self) -> None:
        """Refuse factors that would refuse honest sites."""
        _require(
            self.norm_factor == 0 or 1 < self.norm_factor < float("inf"),
            f"screen.norm_factor is {self.norm_factor}; choose it above 1, or 0 to refuse none",
        )
        _require(self.history >= 0, f"screen.history is {self.history}; choose 0 or more rounds")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, from its first weights to its last report."""

    recipe: Recipe
    federation: FederationConfig
    vocabulary: str = "phantom"
    """`phantom` is shipped; otherwise the path of a BERT `vocab.txt` at the server."""
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    screen: ScreenConfig = field(default_factory=ScreenConfig)
    secagg: SecaggConfig = field(default_factory=SecaggConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    init: InitConfig = field(default_factory=InitConfig)
    initial_weights: str = ""
    """A `weights.safetensors` of an earlier run to start all shared weights from."""
    output_dir: str = "outputs/server"
    """Where weights, journal and result go; one run a folder."""
    sinks: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Where each round's numbers go besides, under the run's folder; see docs/runs.md."""
    seed: int = 0
    run_id: str = ""
    """Names the run in every message; empty draws a new one."""

    def __post_init__(self) -> None:
        """Refuse names that could not stand in a message, and two starts at once."""
        _require(
            not self.run_id or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.run_id) is not None,
            f"run_id is {self.run_id!r}; use up to 64 letters, digits, dots, hyphens or underscores",
        )
        _require(
            bool(self.run_id) or self.federation.final != "evaluate",
            "federation.final is evaluate, but no run is named; set run_id to that of the run that fine-tuned",
        )
        _require(
            not (self.initial_weights and (self.init.vision or self.init.text)),
            "initial_weights replaces all shared weights, so init.vision and init.text would be lost; leave one empty",
        )
