"""What a report is made from: the answers of every arm, what the sites hold, and what training cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mumc_model.errors import MumcError
from mumc_model.evaluate import AnswerRow, Question

ARMS = ("scratch", "local", "federated", "centralised")
"""The order in which arms are shown; any other arm follows as it comes."""

GUESSES = ("chance", "majority", "question_only")
"""The baselines that never see an image, from the weakest to the strongest."""

NORMALISER = "mumc"
"""How sites compare answers in a run; `mumc-site evaluate` offers the others."""

DIFFERENCES = (
    ("federated", "scratch"),
    ("federated", "local"),
    ("centralised", "federated"),
    ("federated", "question_only"),
)
"""Which pairs are compared on the same questions, where both are there."""


class ReportError(MumcError):
    """The results do not fit together, or a report cannot be read; the message says which."""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """The test questions of one site, answered by one arm with one seed, in the order of the site's file."""

    arm: str
    seed: int
    site: str
    rows: Sequence[AnswerRow]


@dataclass(frozen=True, kw_only=True)
class SiteQuestions:
    """What one site holds: its questions, for the guesses that never see an image, and the size of its archive."""

    seed: int
    site: str
    train: Sequence[Question]
    test: Sequence[Question]
    captions: int = 0
    """Captioned images that the site pre-trains on."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one arm's pre-training did and cost, for one seed (and one site, where each site trains alone)."""

    arm: str
    seed: int
    site: str = ""
    """Empty where the rounds are those of a whole federation."""
    losses: Sequence[Mapping[str, float]] = ()
    """Mean of each loss over a round's steps, round by round."""
    bytes_up: int = 0
    """From the sites to the server."""
    bytes_down: int = 0
    wall_s: float = 0.0
    """Pre-training, fine-tuning and evaluation."""


@dataclass(frozen=True, kw_only=True)
class ArmFacts:
    """What is known of one arm's pre-training with one seed: its privacy budget, retrieval by its encoders."""

    arm: str
    seed: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One run of a simulation, over all its arms and seeds."""

    name: str
    data: Literal["synthetic", "real"]
    case: str
    """One sentence: which hospitals and which questions the numbers are for."""
    command: str
    """What to type to see the same numbers again."""
    results: Sequence[ArmResult]
    questions: Sequence[SiteQuestions]
    training: Sequence[Training] = ()
    facts: Sequence[ArmFacts] = ()
    arm_factors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What sets an arm apart, by name; copied into its cells."""
    pairs: Sequence[tuple[str, str]] = ()
    """Pairs of arms to compare beside those of `DIFFERENCES`."""
    selection: str = ""
    """How each site chose the weights that answer, in one sentence."""
    wall_s: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, Any] = field(default_factory=dict)
    """What distinguishes this run from its neighbours in a sweep; copied into every cell."""
    caveats: Sequence[str] = ()
    """Whatever else a reader must know, beside what the report says of itself."""
