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
    """A federated arm that differs from the others in some settings of its run."""

    epsilon: float = 0.0
    """Epsilon that the whole pre-training shall cost, by PLD; the noise follows from it. 0 keeps the run's noise."""
    warm: bool = False
    """Start from the weights of the arm `public`."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run that are others here: `{recipe: {privacy: {unit: patient}}}`."""


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
    """More federated arms, by name."""
    references: tuple[Arm, ...] = ()
    """Arms that every variant is compared with on the same questions, where both are run."""
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

    def __post_init__(self) -> None:
        """Refuse a comparison of nothing."""
        if not self.arms or not self.seeds:
            raise ConfigurationError("a simulation needs at least one arm and one seed, for instance seeds=[0]")
        for arm in (*self.arms, *self.references):
            if arm not in ARMS and arm not in self.variants:
                raise ConfigurationError(f"no arm is called '{arm}'; {nearest(arm, [*ARMS, *self.variants])}")
        if any(self.variants[arm].warm for arm in self.arms if arm in self.variants) and "public" not in self.arms:
            raise ConfigurationError("a warm variant starts from the arm public; add public to arms")
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigurationError(f"seeds {list(self.seeds)} repeat; each seed counts once")

    @property
    def pairs(self) -> list[tuple[Arm, Arm]]:
        """Every variant that is run with each reference that is run."""
        variants = [arm for arm in self.arms if arm in self.variants]
        references = [other for other in self.references if other in self.arms]
        return [(arm, other) for other in references for arm in variants if arm != other]
