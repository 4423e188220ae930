"""What `mumc-sim run` is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.loader import ConfigurationError, nearest
from mumc_model.data.phantom import PhantomConfig
from server.config import RunConfig
from simulations.engine import EngineConfig
from simulations.partition import PartitionConfig

Arm = str
"""One of `ARMS`, or the name of a variant."""
ARMS = ("scratch", "local", "federated", "centralised", "public")
"""What can be compared: see `simulations.arms`."""


@dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """An arm that differs from the others in some settings of its run."""

    arm: Literal["scratch", "local", "federated", "centralised"] = "federated"
    """Of which kind it is."""
    after: Arm = ""
    """The arm whose shared weights it starts from; it runs once that one is done."""
    answer: Literal["finetune", "match"] = "finetune"
    """`match` trains nothing, neither before nor for the questions: the text of question and answer that matches the
    image best is the answer. The weights are those of `after`, or random ones for `arm: scratch`."""
    against: tuple[Arm, ...] = ()
    """Arms that it is compared with on the same questions, where both are run; empty takes `references`."""
    factors: Mapping[str, Any] = field(default_factory=dict)
    """What sets it apart, by name, for tables and plots: `{without: mim}`, `{examples: 8, tuning: adapters}`."""
    epsilon: float = 0.0
    """Epsilon that the whole pre-training shall cost, by PLD; the noise follows from it. 0 keeps the run's noise."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run that are others here: `{recipe: {privacy: {unit: patient}}}`."""

    def __post_init__(self) -> None:
        """Matching trains nothing, so it must know with which weights."""
        if self.answer == "match" and bool(self.after) == (self.arm == "scratch"):
            raise ConfigurationError(
                "a variant with answer: match takes the weights of another arm (after: NAME), or random ones (arm: "
                "scratch); give it one of the two"
            )


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where the hospitals' records come from."""

    kind: Literal["phantom", "folder", "public"] = "phantom"
    """`phantom` draws them; `folder` reads one site folder or a folder of them; `public` imports public sets."""
    path: str = ""
    """For `folder` and `public`: where to read."""
    captions: str = "vqa_med_2019"
    """For `public`: the set whose captions are the archives."""
    questions: str = "slake"
    """For `public`: the set whose questions are asked."""
    question_options: Mapping[str, str] = field(default_factory=dict)
    """For `public`: options of that set's importer, as in `{split: image_disjoint}`."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)

    def __post_init__(self) -> None:
        """A source that is read must say where."""
        if self.kind != "phantom" and not self.path:
            raise ConfigurationError(f"source={self.kind} reads real data: say where with data_root=/path/to/it")


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """A run, the hospitals it is tried on, and the arms that are compared."""

    run: RunConfig
    name: str = "simulation"
    arms: tuple[Arm, ...] = ("scratch", "local", "federated", "centralised")
    scratch_freeze: Literal["none", "vision", "encoders"] = "none"
    """What `scratch` keeps frozen in fine-tuning; its encoders are random, so by default nothing."""
    variants: Mapping[str, VariantConfig] = field(default_factory=dict)
    """More arms, by name."""
    references: tuple[Arm, ...] = ()
    """Arms that variants are compared with on the same questions, where both are run; see `against`."""
    newcomers: int = 0
    """So many hospitals, the last ones, take no part in pre-training together; only they fine-tune and are asked."""
    caveats: tuple[str, ...] = ()
    """What else a reader of the report must know, in sentences."""
    public_images: int = 400
    """Captioned images of the public archive, from which the arm `public` learns and banks at sites are drawn."""
    delta: float = 1e-4
    """Of the policies that simulated hospitals sign, where an arm is differentially private."""
    seeds: tuple[int, ...] = (0,)
    """Each seed draws its own hospitals, weights and batches; the report is over all of them."""
    source: SourceConfig = field(default_factory=SourceConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    output_root: str = "outputs"
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    kernels: Literal["eager", "graphs", "compiled"] = "graphs"

    def __post_init__(self) -> None:
        """Refuse a comparison of nothing."""
        if not self.arms or not self.seeds:
            raise ConfigurationError("a simulation needs at least one arm and one seed, for instance seeds=[0]")
        against = [other for variant in self.variants.values() for other in variant.against]
        for arm in (*self.arms, *self.references, *against):
            if arm not in ARMS and arm not in self.variants:
                raise ConfigurationError(f"no arm is called '{arm}'; {nearest(arm, [*ARMS, *self.variants])}")
        for arm in self.arms:
            self._check_order(arm)
        if not 0 <= self.newcomers < self.run.federation.sites:
            raise ConfigurationError(
                f"newcomers is {self.newcomers} of federation.sites={self.run.federation.sites} hospitals; choose 0 or "
                "more, and leave at least one that pre-trains"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigurationError(f"seeds {list(self.seeds)} repeat; each seed counts once")

    def _check_order(self, arm: Arm) -> None:
        """An arm starts from one that is run before it."""
        after, seen = self.after(arm), [arm]
        while after:
            if after not in self.arms:
                raise ConfigurationError(f"{seen[-1]} starts from the arm {after}; add {after} to arms")
            if after in seen or self.kind(after) == "local":
                raise ConfigurationError(f"{seen[-1]} cannot start from {after}, which has no weights for it yet")
            seen.append(after)
            after = self.after(after)

    def kind(self, arm: Arm) -> str:
        """Which of `ARMS` it is, or is a variant of."""
        return self.variants[arm].arm if arm in self.variants else arm

    def after(self, arm: Arm) -> Arm:
        """The arm whose weights it starts from, or nothing."""
        return self.variants[arm].after if arm in self.variants else ""

    def matches(self, arm: Arm) -> bool:
        """Whether it answers by matching, without any training."""
        return arm in self.variants and self.variants[arm].answer == "match"

    @property
    def pairs(self) -> list[tuple[Arm, Arm]]:
        """Every variant that is run with each arm that it is compared with, as far as that is run."""
        variants = [arm for arm in self.arms if arm in self.variants]
        named = [(arm, other) for arm in variants for other in self.variants[arm].against]
        rest = [(arm, other) for other in self.references for arm in variants if not self.variants[arm].against]
        return [(arm, other) for arm, other in (*named, *rest) if other in self.arms and arm != other]

    @property
    def factors(self) -> dict[Arm, dict[str, Any]]:
        """What sets each variant that is run apart, `setting` being its kind."""
        own = {arm: self.variants[arm] for arm in self.arms if arm in self.variants}
        return {arm: {"setting": variant.arm, **variant.factors} for arm, variant in own.items() if variant.factors}
