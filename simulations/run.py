"""A whole simulation: hospitals for each seed, every arm on them, one report."""

import time
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console

from configs.loader import dump
from mumc_model.data.tokenizer import vocabulary
from mumc_model.device import choose_device
from simulations.config import SimulationConfig
from simulations.engine import open_engine
from simulations.private import use_registry
from simulations.progress import Watch
from simulations.report_study import Study
from simulations.seed import Seed
from simulations.wording import case, caveats, selection


def simulate(config: SimulationConfig, command: str, console: Console) -> tuple[Study, Path]:
    """The study of every arm and seed, and the folder that holds its parts; `outputs/latest` points to that folder.

    Raises:
        ConfigurationError, MumcError: the configuration cannot be run here.
        FederationError: a run lost too many sites; the other arms end too, and what was written until then stays.
    """
    started = time.monotonic()
    choose_device(config.device)
    vocabulary(config.run.vocabulary)
    out = _new_folder(Path(config.output_root), config.name)
    (out / "config.yaml").write_text(yaml.safe_dump(dump(config), sort_keys=False), encoding="utf-8")
    console.print(
        f"{config.name}: {len(config.arms)} arms, seeds {list(config.seeds)}, results in {out}", highlight=False
    )
    seeds = _run_seeds(config, out, console)
    study = Study(
        name=config.name,
        data="synthetic" if config.source.kind == "phantom" else "real",
        case=case(config),
        command=command,
        results=[row for seed in seeds for row in seed.results],
        questions=[row for seed in seeds for row in seed.questions],
        training=[row for seed in seeds for row in seed.training],
        facts=[row for seed in seeds for row in seed.facts],
        pairs=config.pairs,
        arm_factors=config.factors,
        selection=selection(config),
        wall_s=time.monotonic() - started,
        config=dump(config),
        caveats=caveats(config),
    )
    return study, out


def _run_seeds(config: SimulationConfig, out: Path, console: Console) -> list[Seed]:
    """Every seed, one after the other, on one engine."""
    use_registry(out)
    engine, seeds = open_engine(config.engine, out / "workers.log"), []
    try:
        with Watch(console) as watch:
            for number in config.seeds:
                seeds.append(Seed(config, number, out / f"seed-{number}", engine, watch))
                seeds[-1].run()
    except KeyboardInterrupt:
        console.print(
            f"stopped without a report; what was finished until then stays in {out}", highlight=False, soft_wrap=True
        )
        raise
    finally:
        engine.close()
    return seeds


def _new_folder(root: Path, name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    out = root.resolve() / f"{name}-{stamp}"
    for attempt in range(2, 100):
        if not out.exists():
            break
        out = root.resolve() / f"{name}-{stamp}-{attempt}"
    out.mkdir(parents=True)
    latest = root / "latest"
    if latest.is_symlink():
        latest.unlink()
    if not latest.exists():
        latest.symlink_to(out.name, target_is_directory=True)
    return out
