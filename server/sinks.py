"""Where a run's numbers go beside its journal: TensorBoard, MLflow. Both write under the run's folder and dial nobody.

A sink is for looking on. What it cannot do costs the sink, never the run: the journal is the truth.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mumc_model.errors import ConfigError
from server.journal import RoundRecord

PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""What each sink imports; `pip install 'fedmumc[NAME]'` brings it."""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_log = logging.getLogger("fedmumc.server")


class Sink(Protocol):
    """One place that numbers go to."""

    def write(self, numbers: Mapping[str, float], step: int, when_s: float) -> None:
        """Take numbers by name; `when_s` is in seconds since 1970."""

    def close(self) -> None:
        """Have everything on the disk."""


def check_sinks(names: Iterable[str]) -> None:
    """Return only if the packages of these sinks are installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if missing := [package for package in PACKAGES[name] if find_spec(package) is None]:
            raise ConfigError(
                f"sinks names {name}, and {', '.join(missing)} is not installed here; install it with: pip install "
                f"'fedmumc[{name}]', or take {name} out of sinks"
            )


class Sinks:
    """All sinks of a run.

    Args:
        names: As `sinks` of the run's configuration gives them.
        folder: Of the run.
        run_id: Its name. A resumed run goes on where it was.

    Raises:
        ConfigError: a package is not installed.
    """

    def __init__(self, names: Iterable[str], folder: Path, run_id: str) -> None:
        names = tuple(names)
        check_sinks(names)
        self._open: dict[str, Sink] = {}
        for name in names:
            self._guarded(name, lambda name=name: self._open.update({name: _OPEN[name](folder, run_id)}))  # type: ignore[misc]

    def add(self, record: RoundRecord) -> None:
        """Hand over the numbers of a round or attempt."""
        self._write(numbers_of(record), record.round, _seconds(record.ended))

    def end(self, metrics: Mapping[str, Mapping[str, float]], round: int) -> None:
        """Hand over what each site released after the last round, by site, and close."""
        final = {
            f"final/{_plain(site)}/{_plain(name)}": value
            for site, values in metrics.items()
            for name, value in values.items()
        }
        self._write(final, round, _seconds(""))
        self.close()

    def close(self) -> None:
        """Have everything on the disk; more can be added to none."""
        for name, sink in list(self._open.items()):
            self._guarded(name, sink.close)
        self._open.clear()

    def _write(self, numbers: Mapping[str, float], step: int, when_s: float) -> None:
        for name, sink in list(self._open.items()):
            self._guarded(name, lambda sink=sink: sink.write(numbers, step, when_s))  # type: ignore[misc]

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do it, or do without the sink from now on."""
        try:
            work()
        except Exception as error:
            self._open.pop(name, None)
            _log.warning("%s takes no more numbers of this run (%s); the journal has them all", name, error)


def numbers_of(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round by name; an attempt that came to nothing has its number and its cost alone."""
    cost = {
        "cost/seconds": record.seconds,
        "cost/MB_up": record.bytes_up / 1e6,
        "cost/MB_down": record.bytes_down / 1e6,
    }
    if not record.sites_merged:
        return {"void/attempt": float(record.attempt)} | {f"void/{name}": value for name, value in cost.items()}
    return {
        **{f"loss/{_plain(name)}": value for name, value in record.losses.items()},
        "sites/merged": float(record.sites_merged),
        "sites/expected": float(record.sites_expected),
        "sites/late": float(len(record.late)),
        "update/norm": record.update_norm,
        "update/examples": float(record.examples),
        "update/lr": record.lr,
        **{f"norm/{_plain(site)}": value for site, value in record.norms.items()},
        **{f"epsilon/{_plain(site)}": value for site, value in record.epsilon.items()},
        **({"epsilon/largest": max(record.epsilon.values())} if record.epsilon else {}),
        **cost,
    }


class _TensorBoard:
    """Event files in `tensorboard/`: `tensorboard --logdir RUNFOLDER`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder / "tensorboard"))

    def write(self, numbers: Mapping[str, float], step: int, when_s: float) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step, wall_time=when_s)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Mlflow:
    """A store in `mlflow/mlflow.db`: `mlflow ui --backend-store-uri sqlite:///RUNFOLDER/mlflow/mlflow.db`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        os.environ.update(_QUIET)  # Read as mlflow is imported; without it each import tells its makers.
        from mlflow.tracking import MlflowClient

        store = folder.resolve() / "mlflow"
        store.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(run_id)
        place = found.experiment_id if found else self._client.create_experiment(run_id, (store / "files").as_uri())
        runs = self._client.search_runs([place], max_results=1)
        self._run = (runs[0] if runs else self._client.create_run(place, run_name=run_id)).info.run_id

    def write(self, numbers: Mapping[str, float], step: int, when_s: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, int(when_s * 1000), step) for name, value in numbers.items()]
        for start in range(0, len(metrics), 1000):  # as many as MLflow takes at once
            self._client.log_batch(self._run, metrics[start : start + 1000])

    def close(self) -> None:
        self._client.set_terminated(self._run)


_OPEN: Mapping[str, Callable[[Path, str], Sink]] = {"tensorboard": _TensorBoard, "mlflow": _Mlflow}


def _plain(name: str) -> str:
    """A name that every sink takes; those of losses come from sites."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80] or "_"


def _seconds(moment: str) -> float:
    """Seconds since 1970 of an ISO time; now where there is none."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return datetime.now().timestamp()
