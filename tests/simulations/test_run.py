import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import server.federation
from client.state import RunState
from configs.loader import load
from mumc_model.checkpoint import load_weights
from mumc_model.errors import DeviceError, MumcError
from server.journal import read_journal
from simulations.config import SimulationConfig
from simulations.engine import InProcess
from simulations.grid import LocalGrid
from simulations.report import read_report, write_report
from simulations.run import simulate

ARMS = ["scratch", "local", "federated", "centralised"]
HOSPITALS = ["hospital-1", "hospital-2"]
WEIGHTS = "seed-{}/runs/federated/weights.safetensors"
DOCUMENTED = Path(__file__).parents[2] / "docs" / "report.md"


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("outputs"), "engine.workers=1")


@pytest.fixture(scope="module")
def finished(config):
    return simulate(config, "mumc-sim run experiment=smoke", Console(quiet=True))


@pytest.fixture(scope="module")
def report(finished):
    return write_report(*finished)


def answers(study, seed=0):
    return {result.site: result.rows for result in study.results if (result.arm, result.seed) == ("federated", seed)}


def test_every_arm_answers_the_test_questions_of_every_hospital(finished):
    study, _ = finished
    assert [(result.arm, result.site) for result in study.results] == [(arm, h) for arm in ARMS for h in HOSPITALS]
    assert {len(result.rows) for result in study.results} == {8}
    asked = {(result.site, tuple(row.truth for row in result.rows)) for result in study.results}
    assert len(asked) == len(HOSPITALS)


def test_the_report_has_exactly_the_keys_that_its_page_documents(report, finished):
    names = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (.+?) \|", DOCUMENTED.read_text(), re.MULTILINE)))
    assert report.keys() == {name.partition(".")[0] for name in names}
    assert report == read_report(finished[1])
    assert report["arms"].keys() == set(ARMS)


def test_people_read_the_same_report_beside_the_file_for_machines(report, finished):
    _, out = finished
    shown = f"{report['arms']['federated']['overall']['mean']:.1%}".replace("%", "")
    assert shown in (out / "report.md").read_text()
    assert shown in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("override", "error"),
    [("device=nowhere", DeviceError), ("vocabulary=/nowhere", MumcError)],
    ids=["device", "words"],
)
def test_what_is_not_on_this_machine_is_refused_before_anything_is_written(tiny, tmp_path, override, error):
    with pytest.raises(error):
        simulate(tiny(tmp_path / "out", override), "pytest", Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_latest_leads_to_the_newest_run(config, finished):
    latest = Path(config.output_root) / "latest"
    assert latest.is_symlink()
    assert latest.resolve() == finished[1].resolve()


def test_the_folder_holds_the_configuration_that_makes_the_run_again(config, finished):
    assert load(SimulationConfig, yaml.safe_load((finished[1] / "config.yaml").read_text())) == config


@pytest.mark.parametrize(
    ("run", "sites", "rounds"),
    [
        ("federated", 2, [1, 2]),
        ("local-hospital-1", 1, [1, 2]),
        ("local-hospital-2", 1, [1, 2]),
        ("centralised-pool", 1, [1, 2]),
    ],
)
def test_each_pre_training_writes_a_journal_line_a_round_and_loses_no_site(finished, run, sites, rounds):
    records = read_journal(finished[1] / "seed-0" / "runs" / run / "journal.jsonl")
    assert [record.round for record in records] == rounds
    assert {(record.sites_merged, record.sites_expected) for record in records} == {(sites, sites)}
    assert {(record.run_id, tuple(record.refused)) for record in records} == {(run, ())}
    assert all(record.update_norm > 0 and record.losses["total"] > 0 for record in records)


@pytest.mark.parametrize("run", ["scratch", "centralised"])
def test_what_only_fine_tunes_has_no_rounds(finished, run):
    folder = finished[1] / "seed-0" / "runs" / run
    assert (folder / "result.json").is_file()
    assert not (folder / "journal.jsonl").exists()


def test_the_losses_of_the_report_are_those_of_the_journal(report, finished):
    records = read_journal(finished[1] / "seed-0" / "runs" / "federated" / "journal.jsonl")
    (curve,) = report["arms"]["federated"]["losses"]
    assert curve == {"seed": 0, "site": "", "rounds": [dict(sorted(record.losses.items())) for record in records]}


def test_only_the_federated_arm_moves_bytes(report):
    assert report["bytes_up"] == report["arms"]["federated"]["bytes_up"] > 0
    assert {report["arms"][arm]["bytes_up"] for arm in ("scratch", "local", "centralised")} == {0}


def test_the_pooled_arm_goes_on_from_the_weights_and_heads_of_the_pool(finished):
    seed = finished[1] / "seed-0"
    pooled, merged = (
        load_weights(seed / "runs" / run / "weights.safetensors") for run in ("centralised-pool", "centralised")
    )
    assert all((pooled[name] == merged[name]).all() for name in merged)
    heads = RunState.of(seed / "pool", "centralised-pool").private_weights(before_round=3)
    handed = RunState.of(seed / "sites" / "hospital-1", "centralised").private_weights(before_round=1)
    assert heads.keys() == handed.keys()
    assert all((heads[name] == handed[name]).all() for name in heads)


def test_the_same_seed_gives_the_same_weights_and_answers_whatever_else_runs(finished, alone):
    (whole, first), (part, second) = finished, alone
    assert (first / WEIGHTS.format(0)).read_bytes() == (second / WEIGHTS.format(0)).read_bytes()
    assert answers(whole) == answers(part)


def test_another_seed_draws_other_hospitals_and_weights(alone):
    study, out = alone
    assert (out / WEIGHTS.format(0)).read_bytes() != (out / WEIGHTS.format(1)).read_bytes()
    assert answers(study, 0) != answers(study, 1)


def test_sites_answer_again_with_the_models_that_an_earlier_run_left(alone, tmp_path):
    study, out = alone
    sites = {101 + i: path for i, path in enumerate(sorted((out / "seed-1" / "sites").iterdir()))}
    states = [RunState.of(path, "federated") for path in sites.values()]
    before = [state.rows("test") for state in states]
    for state in states:
        state.keep_rows("test", [])
    engine = InProcess(threads=1)
    run = load(SimulationConfig, study.config).run
    federation = replace(run.federation, rounds=0, final="evaluate")
    evaluate = replace(run, federation=federation, run_id="federated", output_dir=str(tmp_path / "again"))
    try:
        result = server.federation.run(LocalGrid(sites, engine), evaluate)
    finally:
        engine.close()
    assert result.refused == {}
    assert [state.rows("test") for state in states] == before


@pytest.mark.e2e
def test_two_worker_processes_give_the_same_bits_as_one_process(tiny, tmp_path, alone):
    config = tiny(tmp_path, "engine.workers=2", "arms=[federated]")
    study, out = simulate(config, "pytest", Console(quiet=True))
    assert (out / WEIGHTS.format(0)).read_bytes() == (alone[1] / WEIGHTS.format(0)).read_bytes()
    assert answers(study) == answers(alone[0])
