"""Sinks: every number of the journal arrives under its name and round, on this disk alone, and none can end a run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mumc_model.errors import ConfigError
from server import sinks
from server.sinks import Sinks, check_sinks, numbers_of
from tests.server.test_journal import RECORD

ROUND = replace(
    RECORD,
    losses={"total": 2.5, "odd/../name": 1.0},
    norms={"north": 0.5, "south": 0.25},
    epsilon={"north": 1.5, "south": 0.5},
    merged=["north", "south"],
    late={"south": 1},
    ended="2026-11-26T12:00:00+00:00",
)
VOID = replace(RECORD, round=8, sites_merged=0, losses={}, attempt=2)


def scalars(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Step, value and time of everything in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    found.Reload()
    return {
        name: [(event.step, event.tensor_proto.float_val[0], event.wall_time) for event in found.Tensors(name)]
        for name in found.Tags()["tensors"]
    }


def test_a_round_has_a_number_for_everything_that_the_journal_says_in_numbers():
    numbers = numbers_of(ROUND)
    assert numbers["loss/total"] == 2.5
    assert (numbers["sites/merged"], numbers["sites/expected"], numbers["sites/late"]) == (8.0, 10.0, 1.0)
    assert (numbers["norm/north"], numbers["update/norm"]) == (0.5, 0.25)
    assert (numbers["epsilon/south"], numbers["epsilon/largest"]) == (0.5, 1.5)
    assert numbers["cost/MB_up"] == 1e-4
    assert numbers["cost/seconds"] == 41.23


def test_what_a_site_calls_its_losses_cannot_leave_its_place():
    assert "loss/odd____name" in numbers_of(ROUND)


def test_an_attempt_that_came_to_nothing_is_no_point_of_a_curve():
    assert {name.split("/")[0] for name in numbers_of(VOID)} == {"void"}


def test_tensorboard_reads_what_was_written_also_by_a_resumed_run(tmp_path):
    open_ = Sinks(["tensorboard"], tmp_path, "lung-1")
    open_.add(ROUND)
    open_.close()
    resumed = Sinks(["tensorboard"], tmp_path, "lung-1")
    resumed.add(replace(ROUND, round=9, losses={"total": 2.0}))
    resumed.end({"north": {"accuracy": 0.5}}, 10)
    found = scalars(tmp_path)
    assert [point[:2] for point in found["loss/total"]] == [(7, 2.5), (9, 2.0)]
    assert found["loss/total"][0][2] == 1795694400.0
    assert [point[:2] for point in found["final/north/accuracy"]] == [(10, 0.5)]
    assert set(found) == numbers_of(ROUND).keys() | {"final/north/accuracy"}


def test_mlflow_reads_what_was_written_also_by_a_resumed_run(tmp_path):
    # mlflow-skinny brings some twenty packages and 60 MB, so it is no part of the development set.
    pytest.importorskip("mlflow", reason="fedmumc[mlflow] is not installed; the check runs where it is")
    code = f"""
from pathlib import Path
from dataclasses import replace
from server.sinks import Sinks
from tests.server.test_sinks import ROUND
for round, loss in ((7, 2.5), (9, 2.0)):
    sinks = Sinks(["mlflow"], Path({str(tmp_path)!r}), "lung-1")
    sinks.add(replace(ROUND, round=round, losses={{"total": loss}}))
    sinks.close()
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri="sqlite:///{tmp_path}/mlflow/mlflow.db")
run, = client.search_runs([client.get_experiment_by_name("lung-1").experiment_id])
print([(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss/total")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[(7, 2.5), (9, 2.0)]"), done.stderr
    assert not list(Path.cwd().glob("mlruns")) + list(Path.cwd().glob("mlflow.db"))


def test_mlflow_is_told_to_tell_nobody_before_it_is_imported(monkeypatch, tmp_path):
    for name in sinks._QUIET:
        monkeypatch.setenv(name, "false")
    seen = []
    monkeypatch.setitem(sys.modules, "mlflow.tracking", _Import(lambda: seen.append(dict(sinks.os.environ))))
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    with pytest.raises(ZeroDivisionError):
        sinks._Mlflow(tmp_path, "lung-1")
    assert seen[0]["MLFLOW_DISABLE_TELEMETRY"] == seen[0]["DO_NOT_TRACK"] == "true"


class _Import:
    """Stands for a module, and calls back as something is imported from it."""

    def __init__(self, called):
        self._called = called

    def __getattr__(self, name):
        if name == "MlflowClient":
            self._called()
            raise ZeroDivisionError
        raise AttributeError(name)


def test_a_sink_whose_package_is_missing_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sinks.PACKAGES, "tensorboard", ("no_such_package_here",))
    with pytest.raises(
        ConfigError, match=r"no_such_package_here is not installed.*pip install 'fedmumc\[tensorboard\]'"
    ):
        check_sinks(["tensorboard"])
    check_sinks([])


def test_a_sink_that_fails_is_left_out_and_the_run_goes_on(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where the sink wants a folder")
    broken = Sinks(["tensorboard"], tmp_path, "lung-1")
    broken.add(ROUND)
    broken.add(ROUND)
    broken.end({}, 9)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "fedmumc.server"]
    assert warning.startswith("tensorboard takes no more numbers of this run")
