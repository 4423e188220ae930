"""What the server orders and what a site answers, as frozen values and as JSON."""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from protocol.compression import Codec
from protocol.errors import MessageError, NotFiniteError, VersionError

VERSION = 2
"""Version of the messages; both sides must speak the same one."""
MAX_JSON_CHARS = 8 * 2**20
"""A vocabulary of 30 000 words takes about 0.4 MB; nothing honest comes near this."""

MAX_DEPTH = 32
"""Levels of objects and lists in one another: far below where reading or writing JSON would give up half way."""
MAX_METRICS = 512
MAX_REASON = 300
"""Characters of a reason that one side shows of the other."""
MAX_METRIC = 1e30
"""Beyond any loss or share, and small enough that weighted sums stay finite."""

EPSILON = "epsilon_spent"
"""The metric in which a site under differential privacy says what its patients have spent: a fact of public numbers."""

Action = Literal[
    "train.rehearse",
    "train.pretrain",
    "train.finetune",
    "evaluate.vqa",
    "query.advertise",
    "query.share",
    "query.agree",
    "query.unmask",
    "query.statistics_advertise",
    "query.statistics_share",
    "query.statistics_mask",
    "query.statistics_agree",
    "query.statistics_unmask",
    "query.statistics",
]
ACTIONS: tuple[str, ...] = get_args(Action)
"""Flower's message types: the first word is Flower's category, the second the handler."""
STAGE_ACTIONS = {
    "advertise": "query.advertise",
    "share": "query.share",
    "mask": "train.pretrain",
    "agree": "query.agree",
    "unmask": "query.unmask",
}
"""The action of each stage of secure aggregation, in the order of `protocol.secagg.messages.STAGES`."""
STATISTICS = "query.statistics"
"""Tells a site the published statistics; in a site's limits it stands for all that belongs to them."""
STATISTICS_ACTIONS = {stage: f"{STATISTICS}_{stage}" for stage in STAGE_ACTIONS}
"""The action of each stage in which counts are summed: no order of the one kind is ever taken for the other."""
_STAGES = {action: stage for actions in (STAGE_ACTIONS, STATISTICS_ACTIONS) for stage, action in actions.items()}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MessageError(message)


def _require_matching(pattern: re.Pattern[str], where: str, value: str) -> None:
    _require(pattern.fullmatch(value) is not None, f"{where} is {value[:80]!r}, which does not match {pattern.pattern}")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a site is asked to do; the weights to begin with travel beside it."""

    kind: ClassVar[str] = "order"
    run_id: str
    round: int
    """From 1; the fine-tuning that ends a run counts as one round more."""
    attempt: int
    """From 1; a round that is repeated counts up."""
    action: str
    recipe: Mapping[str, Any]
    """The plain values of `mumc_model.config.Recipe`."""
    vocabulary: tuple[str, ...]
    first_step: int
    """Optimiser steps that earlier rounds have taken; the learning-rate schedule goes on from here."""
    steps: int
    """Optimiser steps to take now."""
    total_steps: int
    """Optimiser steps of all rounds."""
    seed: int
    """Of this round; a site mixes its own identity into it."""
    base_digest: str
    """`protocol.codec.digest` of the weights that travel beside, or, in a stage of secure aggregation, of the round."""
    codec: Mapping[str, Any] = field(default_factory=lambda: Codec().to_dict())
    """How an update that answers this travels (`protocol.compression.Codec`)."""
    masking: Mapping[str, Any] = field(default_factory=dict)
    """What the server forwards in a stage of secure aggregation (`protocol.secagg.messages`), or the statistics that it
    publishes (`protocol.statistics`); else empty."""
    remark: str = ""
    """Why the last update of this site was not merged, in one line for its engineer; nothing follows from it."""

    def __post_init__(self) -> None:
        """Refuse names, counts and actions that no server sends, and hold the remark to one printable line."""
        object.__setattr__(self, "remark", one_line(self.remark))
        _require_matching(_NAME, "order.run_id", self.run_id)
        _require_matching(_DIGEST, "order.base_digest", self.base_digest)
        _require(self.action in ACTIONS, f"order.action is {self.action[:80]!r}, not one of {', '.join(ACTIONS)}")
        for name, least in (("round", 1), ("attempt", 1), ("first_step", 0), ("steps", 0), ("total_steps", 0)):
            value = getattr(self, name)
            _require(value >= least, f"order.{name} is {value}, below {least}")
        _require(0 <= self.seed < 2**63, f"order.seed is {self.seed}, outside 0 to 2**63 - 1")
        masks, may = bool(self.masking), self.action in _STAGES or self.action == STATISTICS
        _require(may or not masks, f"an order to {self.action} carries order.masking, and is no stage of it")
        _require(masks or not self.action.startswith("query."), f"an order to {self.action} lacks order.masking")
        extra = bool(self.recipe or self.vocabulary or self.first_step or self.steps or self.total_steps)
        _require(not (self.statistics and extra), f"an order to {self.action} carries a recipe, words or steps")
        codec = Codec.of(self.codec)
        what = f"{codec.kind} of factors" if codec.adapters else codec.kind
        _require(codec.plain or not masks, f"an order under masks names the codec {what}; masked words must add")

    @property
    def stage(self) -> str:
        """The stage of secure aggregation that this asks for; empty where it asks for none."""
        return _STAGES.get(self.action, "") if self.masking else ""

    @property
    def statistics(self) -> bool:
        """Whether it belongs to the statistics, and so to no training."""
        return self.action == STATISTICS or self.action in STATISTICS_ACTIONS.values()

    @property
    def of_round(self) -> "Order":
        """The same in all attempts at a round, masked or not: what a site answers it with is made once."""
        return dataclasses.replace(self, attempt=1, masking={}, remark="")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a site says about the work it did; an update travels beside it after pre-training."""

    kind: ClassVar[str] = "report"
    run_id: str
    round: int
    attempt: int
    site: str
    """The name the site goes by; empty lets the server call it by its node id."""
    examples: int
    """Examples seen: the weight of the update in the mean. Under masks that is the enrolled one, and else 0."""
    metrics: Mapping[str, float]
    """Mean losses, or accuracies; every value finite."""
    base_digest: str
    """That of the order, and so of the weights the update starts from."""
    masking: Mapping[str, Any] = field(default_factory=dict)
    """The site's message of a stage of secure aggregation, as `protocol.secagg.messages` writes it; else empty."""

    def __post_init__(self) -> None:
        """Refuse names that could not stand in a log, and metrics that are no numbers."""
        if self.site:
            _require_matching(_NAME, "report.site", self.site)
        _require_matching(_NAME, "report.run_id", self.run_id)
        _require_matching(_DIGEST, "report.base_digest", self.base_digest)
        _require(len(self.metrics) <= MAX_METRICS, f"report.metrics has {len(self.metrics)} values, over {MAX_METRICS}")
        long = [name for name in self.metrics if not (name.isprintable() and 1 <= len(name) <= 80)]
        _require(not long, f"{len(long)} names in report.metrics are empty, over 80 characters or not printable")
        bad = sorted(name for name, value in self.metrics.items() if not abs(value) <= MAX_METRIC)
        if bad:
            raise NotFiniteError(f"report.metrics has {len(bad)} values that are no finite number, first {bad[0]!r}")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a site did not do what it was asked: a stable code and one line that quotes no data."""

    kind: ClassVar[str] = "refusal"
    code: str
    text: str

    def __post_init__(self) -> None:
        """Hold the text to one printable line, since it is shown on the other side's terminal."""
        _require_matching(_CODE, "refusal.code", self.code)
        object.__setattr__(self, "text", one_line(self.text))


Message = Order | Report | Refusal
_KINDS: dict[str, type[Order] | type[Report] | type[Refusal]] = {c.kind: c for c in (Order, Report, Refusal)}


def one_line(text: str) -> str:
    """The text as one short, printable line: no control character of the other side's reaches a terminal or a log."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_REASON]).split())[:MAX_REASON]


def to_json(message: Message) -> str:
    """The canonical JSON of a message: sorted keys, no spaces, with kind and version."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    values = {"kind": message.kind, "version": VERSION, **fields}
    try:
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise MessageError(f"the {message.kind} holds a value that JSON cannot carry: {error}") from error


def from_json(text: str) -> Message:
    """The message that `to_json` wrote, every field checked.

    Raises:
        VersionError: the other side runs another version.
        NotFiniteError: a metric is not finite.
        MessageError: anything else that is not exactly a message.
    """
    if len(text) > MAX_JSON_CHARS:
        raise MessageError(f"a message of {len(text)} characters is longer than the limit of {MAX_JSON_CHARS}")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError("the message is not JSON") from error
    if not isinstance(values, dict):
        raise MessageError(f"a message is an object with named fields, not {type(values).__name__}")
    _require_shallow(values)
    kind, version = values.pop("kind", None), values.pop("version", None)
    if version != VERSION:
        raise VersionError(
            f"the message has version {version!r:.20}, this side speaks {VERSION}; install the same fedmumc"
        )
    if not isinstance(kind, str) or kind not in _KINDS:
        raise MessageError(f"the message is of kind {kind!r:.80}, not one of {', '.join(_KINDS)}")
    return _build(_KINDS[kind], values)


def _require_shallow(value: Any) -> None:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [item for held in layer for item in _items(held) if isinstance(item, (dict, list))]
    _require(not layer, f"the message has more than {MAX_DEPTH} levels of objects and lists in one another")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _build(cls: type[Order] | type[Report] | type[Refusal], values: dict[str, Any]) -> Message:
    fields = {f.name: f.type for f in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise MessageError(f"unknown field {cls.kind}.{name[:60]}{hint}")
    if missing := sorted(fields.keys() - values.keys()):
        raise MessageError(f"{cls.kind} lacks {', '.join(missing)}")
    return cls(**{name: _read(f"{cls.kind}.{name}", fields[name], value) for name, value in values.items()})


def _read(where: str, hint: Any, value: Any) -> Any:
    """The value, if it is of the field's type."""
    if hint in (str, int):
        _require(type(value) is hint, f"{where} must be {hint.__name__}, not {type(value).__name__}")
        return value
    if hint == tuple[str, ...]:
        _require(isinstance(value, list) and all(type(v) is str for v in value), f"{where} must be a list of strings")
        return tuple(value)
    _require(isinstance(value, dict), f"{where} must be an object, not {type(value).__name__}")
    if hint == Mapping[str, float]:
        _require(all(type(v) in (int, float) for v in value.values()), f"{where} must hold numbers only")
        return {name: _number(where, v) for name, v in value.items()}
    return value


def _number(where: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise MessageError(f"{where} holds a number beyond any float") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not plain")
