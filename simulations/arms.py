"""The arms of a comparison, each as the federations that make it up.

Every arm is the same two apps: `local` is a federation of one site, once for each hospital; `centralised` is a
federation whose only site holds every archive, with as many steps a round as all hospitals together take. Where some
hospitals are newcomers, the others pre-train, and only the newcomers fine-tune.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from configs.loader import dump, load
from mumc_model.config import InitConfig
from mumc_model.privacy import PrivacyConfig
from protocol.secagg.messages import STAGES
from server.config import CodecConfig, RunConfig
from simulations.config import Arm, SimulationConfig


@dataclass(frozen=True, kw_only=True)
class Federation:
    """One run of the ServerApp over some sites."""

    arm: Arm
    sites: tuple[Path, ...]
    run: RunConfig
    after: "Federation | None" = None
    """The federation of the pooled archive, whose weights and private heads this one begins with."""

    @property
    def replies(self) -> int:
        """How many replies the run takes: one a site and round, and one a site that fine-tunes; under masks five."""
        each = len(STAGES) if self.masked else 1
        return len(self.sites) * (self.run.federation.rounds * each + (self.run.federation.final != "none"))

    @property
    def masked(self) -> bool:
        """Whether its rounds go under masks, so that its sites need keys."""
        return self.run.secagg.mode == "required"


Stage = list[Federation]
"""Federations that may run side by side."""


def plan(
    arm: Arm, config: SimulationConfig, seed: int, hospitals: Sequence[Path], pool: Path, out: Path
) -> list[Stage]:
    """The stages of one arm, to be run one after the other; results go to folders under `out`.

    `pool` is the archive of all that pre-train together, or for the arm `public` one that belongs to no hospital. An
    arm that only matches has no stage.
    """
    if config.matches(arm):
        return []
    kind, base = config.kind(arm), replace(config.run, seed=seed)
    if arm in config.variants:
        base = variant_run(config, arm, base, out)
    if kind != "federated":
        base = _for_free(base)
    rounds, members, asked = base.federation.rounds, hospitals, hospitals
    if config.newcomers:
        members, asked = hospitals[: -config.newcomers], hospitals[-config.newcomers :]
    if kind == "scratch":
        freeze = replace(base.recipe.finetune, freeze=config.scratch_freeze)
        base = replace(base, recipe=replace(base.recipe, finetune=freeze))
        return [[_federation(arm, asked, base, out, arm, rounds=0)]]
    if kind == "local":
        return [[_federation(arm, [path], base, out, f"{arm}-{path.name}", rounds=rounds) for path in asked]]
    if kind == "federated" and (not config.newcomers or not rounds):
        return [[_federation(arm, asked, base, out, arm, rounds=rounds)]]
    if kind == "federated":
        pretrain = _federation(arm, members, base, out, f"{arm}-members", rounds=rounds, final="none")
        return [[pretrain], [_federation(arm, asked, _from(pretrain, base), out, arm, rounds=0)]]
    steps = base.federation.local_steps * len(members)
    pretrain = _federation(arm, [pool], base, out, f"{arm}-pool", rounds=rounds, local_steps=steps, final="none")
    finetune = _federation(arm, asked, _from(pretrain, base), out, arm, rounds=0)
    return [[pretrain], [replace(finetune, after=pretrain)]]


def weights_of(arm: Arm, out: Path) -> Path:
    """The merged weights that an arm leaves, whatever its kind, but for `local`."""
    return out / arm / "weights.safetensors"


def _for_free(run: RunConfig) -> RunConfig:
    """What a federation costs is read beside arms that pay nothing for it: no privacy, no masks, no network."""
    run = replace(run, recipe=replace(run.recipe, privacy=PrivacyConfig()))
    return replace(run, secagg=replace(run.secagg, mode="off"), codec=CodecConfig(kind="float32"))


def _from(pretrain: Federation, run: RunConfig) -> RunConfig:
    """The run, from the weights that a federation leaves."""
    weights = str(Path(pretrain.run.output_dir) / "weights.safetensors")
    return replace(run, initial_weights=weights, init=InitConfig())


def variant_run(config: SimulationConfig, arm: Arm, base: RunConfig, out: Path) -> RunConfig:
    """The run of a variant: its own settings over those of all, and the weights of the arm that it comes after.

    Raises:
        ConfigurationError: a setting is unknown or impossible.
    """
    variant = config.variants[arm]
    run = load(RunConfig, _merged(dump(base), variant.run), f"variants.{arm}.run")
    if variant.after:
        run = replace(run, initial_weights=str(weights_of(variant.after, out)), init=InitConfig())
    return run


def _merged(node: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(node)
    for key, value in over.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged


def _federation(
    arm: Arm,
    sites: Sequence[Path],
    run: RunConfig,
    out: Path,
    name: str,
    *,
    rounds: int,
    local_steps: int | None = None,
    final: Literal["finetune", "none"] = "finetune",
) -> Federation:
    federation = replace(
        run.federation,
        rounds=rounds,
        sites=len(sites),
        min_sites=min(run.federation.min_sites, len(sites)),
        local_steps=run.federation.local_steps if local_steps is None else local_steps,
        final=final,
    )
    run = replace(run, run_id=name, output_dir=str(out / name), federation=federation)
    return Federation(arm=arm, sites=tuple(sites), run=run)
