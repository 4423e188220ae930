"""Whether this site does what an order asks: its limits, checked before any data is opened, outside the training code.

A site without limits trains nothing. A reason names the order's numbers and the site's limit, never anything of its
data, so that the server can show it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, time
from fnmatch import fnmatchcase
from pathlib import Path

from flwr.app import Context, Message

from client.config import RunLimits, SiteConfig, read_site_config
from client.datacard.approval import is_approved
from client.datacard.stamp import card_state
from client.errors import GateError
from client.privacy.policy import check_run, read_policy
from client.site import REHEARSAL_KEY, is_trial, site_root
from configs.loader import load
from mumc_model.config import Recipe
from protocol.messages import STATISTICS, Order, Report
from protocol.records import order_from_record
from protocol.signing import payload_hash
from protocol.suppression import SMALLEST

CallNext = Callable[[Message, Context], Message]
CODE_KEY = "code"
"""Key of the node's configuration under which the site's own task runner puts the digest of the run's code."""
INSTALLED_KEY = "installed"
"""And the digest of the code that is installed here."""
REHEARSE = "train.rehearse"
"""The one action that opens no data, and so is not held to masks, privacy and records."""
CARD_REASONS = {
    "none": "the site trains only on data that has a data card, and has none; its engineer makes one with "
    "mumc-site card (policy.runs.card)",
    "stale": "the site trains only on data that has a data card, and its data has changed since; its engineer makes "
    "it again with mumc-site card (policy.runs.card)",
    "old": "the site trains only on data that has a data card, and its card is of an earlier fedmumc, which did not "
    "look at the image files; its engineer makes it again with mumc-site card (policy.runs.card)",
}
CARD_APPROVED = (
    "the site's counts go into a sum only with a data card of its data as it is that a person there has approved; its "
    "engineer makes it with mumc-site card and approves it with mumc-site card --approve"
)
STATISTICS_PRIVACY = (
    "the site is under differential privacy, and exact sums of its counts were charged to no budget, so it takes part "
    "in no statistics"
)
STATISTICS_SMALLEST = (
    f"the site lets no figure about fewer leave than its own smallest count, which is above {SMALLEST}, and statistics "
    f"tell every sum from {SMALLEST} on, so it takes part in none (policy.runs.smallest_count)"
)
MOST_REHEARSED = 2
"""Steps of a rehearsal."""


def keep_policy(message: Message, context: Context, call_next: CallNext) -> Message:
    """A Flower mod: an order that the site's limits do not allow goes no further."""
    root = site_root(context)
    config = read_site_config(root)
    limits = config.policy.runs
    if limits is None and is_trial(context):
        return call_next(message, context)
    if limits is None:
        raise GateError(
            "no_policy",
            "the site has set no limits (policy.runs in its site.yaml), and without them it trains nothing",
        )
    if not is_trial(context):
        code, installed = (str(context.node_config.get(key, "")) for key in (CODE_KEY, INSTALLED_KEY))
        check_code(limits, code, installed)
    order, _ = order_from_record(message.content)
    if context.node_config.get(REHEARSAL_KEY) and order.action != REHEARSE:
        raise GateError("rehearsing", f"the site is rehearsing, and follows no order to {order.action} until it starts")
    if order.statistics:
        check_statistics(limits, order, root, datetime.now().time())
        return call_next(message, context)
    recipe = load(Recipe, order.recipe, "order.recipe")
    check_order(limits, order, recipe, datetime.now().time())
    if order.action != REHEARSE:
        check_run(read_policy(root), recipe.privacy)
    if trains(order) or order.action == "train.finetune":
        check_card(limits, root)
    return call_next(message, context)


def check_code(limits: RunLimits, code: str, installed: str) -> None:
    """Return only if the run's code is one that the site accepts; whatever it is, only the installed code runs.

    Raises:
        GateError: it is another.
    """
    allowed = {installed if digest == "installed" else digest for digest in limits.code}
    if not code or code not in allowed:
        raise GateError(
            "policy_code",
            f"the run's code has digest {code[:16] or 'none'}, and this site accepts "
            f"{', '.join(sorted(digest[:16] for digest in allowed)) or 'none'}; install the same fedmumc at both ends",
        )


def check_order(limits: RunLimits, order: Order, recipe: Recipe, now: time) -> None:
    """Return only if the order stays within the limits.

    Raises:
        GateError: it does not; the code names the limit.
    """
    asked = "train.pretrain" if order.masking else order.action
    _require(asked in limits.actions, "actions", "action", asked, "follows " + ", ".join(limits.actions))
    digest = payload_hash(order.recipe)
    if limits.recipes:
        _require(digest in limits.recipes, "recipes", "recipe", digest[:16], f"accepts {len(limits.recipes)} others")
    _at_most("rounds", order.round - (order.action == "train.finetune"), limits.max_rounds)
    _at_most("steps", steps_of(order, recipe), limits.max_steps)
    _at_most("batch", largest_batch(recipe), limits.max_batch)
    sizes = recipe.model.vision.image_size, recipe.finetune.image_size
    _at_most("image_size", max(sizes), limits.max_image_size)
    _at_most("parameters", approximate_parameters(recipe), limits.max_parameters)
    if order.action == REHEARSE:
        _check_rehearsal(order)
    else:
        _check_privacy(limits, recipe)
    if trains(order):
        _check_training(limits, order)
    _require(_open(limits.hours, now), "hours", "time", f"{now:%H:%M}", f"follows orders at {limits.hours}")


def check_statistics(limits: RunLimits, order: Order, root: Path, now: time) -> None:
    """Return only if the site takes part in statistics: its limits name them, and its counts were approved.

    Raises:
        GateError: it does not; nothing is said of the data.
    """
    _require(STATISTICS in limits.actions, "actions", "action", STATISTICS, "follows " + ", ".join(limits.actions))
    _require(_open(limits.hours, now), "hours", "time", f"{now:%H:%M}", f"follows orders at {limits.hours}")
    check_counts(limits, root, approved=bool(order.stage))


def check_counts(limits: RunLimits, root: Path, *, approved: bool = True) -> None:
    """Return only if the site's counts may go into a sum; with `approved` a person must have said so.

    Raises:
        GateError: they may not; nothing is said of the data.
    """
    if limits.privacy == "required" or read_policy(root) is not None:
        raise GateError("policy_statistics", STATISTICS_PRIVACY)
    if limits.smallest_count > SMALLEST:
        raise GateError("policy_statistics", STATISTICS_SMALLEST)
    if approved and not is_approved(root):
        raise GateError("policy_card", CARD_APPROVED)


def trains(order: Order) -> bool:
    """Whether it asks for an update of the shared weights, or for a stage of secure aggregation around one."""
    return order.action == "train.pretrain" or (bool(order.masking) and not order.statistics)


def check_card(limits: RunLimits, root: Path) -> None:
    """Return only if the site may train on its data as it is: where its limits ask for a card, there is one of it.

    Raises:
        GateError: there is none, or the data has changed since; nothing is said of the data.
    """
    if limits.card == "required" and (state := card_state(root)) != "current":
        raise GateError("policy_card", CARD_REASONS[state])


def check_records(limits: RunLimits | None, records: int) -> None:
    """Return only if the site has enough records to take part.

    Raises:
        GateError: it has fewer; how many is not said.
    """
    if limits is not None and records < limits.min_records:
        raise GateError("policy_records", "the site has fewer records of this kind than its own limit asks for")


def released(config: SiteConfig, report: Report) -> tuple[dict[str, float], list[str]]:
    """The metrics of a report that may leave the site, and the names of those that stay."""
    limits = config.policy.runs
    if limits is None:
        return dict(report.metrics), []
    leaving = {
        name: value
        for name, value in report.metrics.items()
        if any(fnmatchcase(name, pattern) for pattern in limits.metrics)
    }
    return leaving, sorted(set(report.metrics) - set(leaving))


def check_weights(limits: RunLimits | None, names: Iterable[str]) -> None:
    """Return only if every weight of an update may leave the site.

    Raises:
        GateError: one may not.
    """
    if limits is not None and (kept := sorted(name for name in names if not name.startswith(limits.weights))):
        raise GateError("policy_weights", f"{len(kept)} weights of the model may not leave this site, first {kept[0]}")


def steps_of(order: Order, recipe: Recipe) -> int:
    """The optimiser steps that an order takes here; fine-tuning takes those of its recipe, whatever the order says."""
    return max(order.steps, recipe.finetune.steps) if order.action == "train.finetune" else order.steps


def largest_batch(recipe: Recipe) -> int:
    """Most records in a step, or in memory at once, of anything that the recipe asks for."""
    sizes, privacy = [recipe.pretrain.batch_size, recipe.finetune.batch_size], recipe.privacy
    if privacy.on:
        sizes += [privacy.expected_batch, privacy.physical_batch]
    if privacy.releases_metrics:
        sizes += [privacy.finetune.expected_batch, privacy.finetune.physical_batch]
    return max(sizes)


def approximate_parameters(recipe: Recipe) -> int:
    """Numbers that a model holds, from its shape alone: weights, positions and the queue; norms and biases left out."""
    model, objective = recipe.model, recipe.objective
    vision, text = model.vision, model.text
    blocks = (
        (vision.depth + (objective.mim_depth if objective.mim else 0)) * (4 + 2 * vision.mlp_ratio) * vision.width**2
    )
    patches = (3 * vision.patch_size**2 + vision.patches) * vision.width
    words = (text.vocab_size + text.max_positions) * text.width
    layers = text.text_layers + text.fusion_layers
    cross = text.fusion_layers * 2 * (text.width + vision.width) * text.width
    decoder = recipe.finetune.decoder_layers * (12 * text.width + 2 * (text.width + vision.width)) * text.width
    shared = model.projection * (vision.width + text.width + 2 * model.queue_size)
    return int(blocks + patches + words + cross + decoder + shared + layers * 12 * text.width**2)


def _check_rehearsal(order: Order) -> None:
    if order.steps > MOST_REHEARSED:
        raise GateError(
            "policy_steps", f"the order rehearses {order.steps:,} steps, and a rehearsal has at most {MOST_REHEARSED}"
        )


def _check_training(limits: RunLimits, order: Order) -> None:
    if order.steps < limits.min_steps:
        raise GateError(
            "policy_min_steps",
            f"the order asks for {order.steps} steps, below this site's {limits.min_steps} (policy.runs.min_steps)",
        )
    if limits.secure_aggregation == "required" and not order.masking:
        raise GateError(
            "policy_secure_aggregation",
            "the run sends updates without masks, and this site requires them (policy.runs.secure_aggregation)",
        )


def _check_privacy(limits: RunLimits, recipe: Recipe) -> None:
    privacy = recipe.privacy
    if limits.privacy == "required" and not privacy.on:
        raise GateError(
            "policy_privacy", "the run is not differentially private, which this site requires (policy.runs.privacy)"
        )
    if privacy.on and privacy.noise_multiplier < limits.noise_multiplier:
        raise GateError(
            "policy_noise",
            f"the run's noise multiplier is {privacy.noise_multiplier:g}, below this site's "
            f"{limits.noise_multiplier:g} (policy.runs.noise_multiplier)",
        )


def _at_most(what: str, asked: int, most: int) -> None:
    name = f"max_{what}"
    _require(asked <= most, name, what.replace("_", " "), f"{asked:,}", f"allows at most {most:,}")


def _require(condition: bool, name: str, what: str, asked: str, limit: str) -> None:
    if not condition:
        raise GateError(
            f"policy_{name.removeprefix('max_')}",
            f"the order's {what} is {asked[:60]}, and this site {limit[:200]} (policy.runs.{name})",
        )


def _open(hours: str, now: time) -> bool:
    if not hours:
        return True
    start, end = (time.fromisoformat(part) for part in hours.split("-"))
    return start <= now < end if start < end else now >= start or now < end
