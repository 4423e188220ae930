"""Hydra's composition of the YAML groups in this folder, ending in plain values.

Only the person who starts a run composes. A site receives the result as JSON and never resolves anything itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.loader import ConfigurationError, nearest, unknown_key

FOLDER = Path(__file__).resolve().parent


def compose(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The node `name` of the configuration `name`.yaml after the overrides, as plain values.

    Args:
        name: `run` (what the server resolves) or `simulation` (a run and the hospitals it is tried on).
        overrides: Hydra overrides such as `model=base` or `federation.rounds=3`. A `run` may name an `experiment` too,
            and takes of it what a run has.

    Raises:
        ConfigurationError: an override is malformed, names a key, group or option that does not exist, or is about
            the simulated hospitals that a `run` does not have.
    """
    primary = _primary(name, overrides)
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            node = hydra_compose(primary, overrides=list(overrides))
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_explain(primary, overrides, error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values[name].items()}


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination that the overrides' comma-separated values and ranges stand for, as Hydra's `-m` reads them."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides=list(overrides))
        return [list(job) for job in BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]]
    except HydraException as error:
        raise ConfigurationError(str(error)) from error


def options(group: str) -> list[str]:
    """The names that `group=NAME` may take."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def _primary(name: str, overrides: Sequence[str]) -> str:
    """The configuration to compose: an experiment is written for a simulation, of which a run is a part."""
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    if name != "run" or "experiment" not in keys:
        return name
    own = set(_dotted_keys("run", ()))
    known = set(_dotted_keys("simulation", overrides))
    for key in keys:
        if key not in own and key != "experiment" and (key in known or (FOLDER / key).is_dir()):
            raise ConfigurationError(
                f"{key} is about simulated hospitals, and in a deployment each site brings its own; leave it out, or "
                "simulate with mumc-sim run"
            )
    return "simulation"


def _explain(name: str, overrides: Sequence[str], error: Exception) -> str:
    """Hydra's complaint, with the nearest key that does exist."""
    known = set(_dotted_keys(name, overrides))
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if (FOLDER / key).is_dir():
            if value and value not in options(key) and "," not in value:
                return f"no {key} is called '{value}'; {nearest(value, options(key))}"
        elif key and key not in known and not override.startswith("+"):
            return unknown_key(key, key, known)
    return str(error)


def _dotted_keys(name: str, overrides: Sequence[str]) -> Iterator[str]:
    """Every key there is, once the groups that the overrides choose are chosen."""
    groups = [override for override in overrides if (FOLDER / override.partition("=")[0]).is_dir()]
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        try:
            node = hydra_compose(name, overrides=groups)
        except (HydraException, OmegaConfBaseException):
            node = hydra_compose(name)
    yield from _walk(OmegaConf.to_container(node, resolve=False), "")


def _walk(node: object, where: str) -> Iterator[str]:
    if where:
        yield where
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _walk(value, f"{where}.{key}" if where else str(key))
