import dataclasses
import multiprocessing
import os
import signal

import pytest

from client.preflight import training
from client.preflight.run import read_run
from client.preflight.steps import Job, Timing, take_steps
from mumc_model.errors import DataError
from tests.client.preflight.conftest import run_file


class Pipe:
    """What a child's end of the pipe is given."""

    def __init__(self):
        self.sent = []

    def send(self, found):
        self.sent.append(found)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def job(site, run, **changes):
    case = site.case()
    recipe = training.with_vocabulary(run.recipe, case.vocabulary_size)
    made = Job(root=case.root, recipe=recipe, vocabulary=tuple(case.tokenizer.vocab), memory_gib=0)
    return dataclasses.replace(made, **changes)


def taken(site, tmp_path, run, **changes):
    pipe, scratch = Pipe(), tmp_path / "scratch"
    scratch.mkdir()
    take_steps(pipe, job(site, run, **changes), scratch)
    (found,) = pipe.sent
    return found


def test_a_step_is_timed_in_a_process_of_its_own_and_leaves_nothing(site):
    assert site.find("data").status == "pass"
    (site.root / "state").mkdir(exist_ok=True)
    before = contents(site.root)
    found = site.find("step")
    assert found.status == "pass", found
    assert found.what.startswith("4 pairs in ")
    assert "; a round of 2 steps takes about " in found.what
    assert found.numbers["round_seconds"] == pytest.approx(2 * found.numbers["step_seconds"], abs=0.1)
    assert found.numbers["peak_bytes"] > 100 << 20
    assert contents(site.root) == before


def test_the_memory_that_the_site_allows_an_order_holds_for_the_step_too(site):
    site.limit(memory_gib=0.05)
    found = site.find("step")
    assert (found.status, found.what) == (
        "fail",
        "the memory within the 0.05 GiB of policy.runs.memory_gib does not suffice for a step",
    )
    assert found.remedy.startswith("lower pretrain.batch_size or raise pretrain.accumulation in the run")


def test_a_private_step_is_the_private_trainer_s_and_charges_nothing(site, tmp_path):
    run = read_run(run_file(tmp_path, "privacy=patient", "privacy.expected_batch=2", "privacy.bank.size=4"))
    found = taken(site, tmp_path, run)
    assert isinstance(found, Timing), found
    assert found.pairs == 2
    assert not [path for path in site.root.rglob("*") if "ledger" in path.name]


def test_weights_that_may_not_leave_and_data_that_is_too_little_are_told_before_any_step(site, tmp_path, monkeypatch):
    site.limit(weights=["visual_encoder."])
    found = taken(site, tmp_path, site.run)
    assert found.status == "fail"
    assert "weights of the model may not leave this site" in found.what

    def few(root):
        raise DataError("pre-training contrasts images, and this site has 1; import more")

    monkeypatch.setattr("client.preflight.steps.open_folder", few)
    (tmp_path / "scratch").rmdir()
    found = taken(site, tmp_path, site.run)
    assert (found.what, found.remedy) == ("pre-training contrasts images, and this site has 1", "import more")


def test_a_fault_of_the_program_is_named_by_its_kind_alone(site, tmp_path, monkeypatch):
    def fault(root):
        raise KeyError("patient Zebediah")

    monkeypatch.setattr("client.preflight.steps.open_folder", fault)
    found = taken(site, tmp_path, site.run)
    assert (found.status, found.what) == ("fail", "the step failed with KeyError")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (-9, "the system killed the step, as it does when memory runs out"),
        (-15, "the step ended with exit code -15"),
        (1, "the step ended with exit code 1"),
    ],
)
def test_a_step_that_dies_is_a_failure_with_its_reason(site, monkeypatch, code, what):
    def die(pipe, job, scratch):
        pipe.close()
        if code < 0:
            os.kill(os.getpid(), signal.Signals(-code))
        os._exit(code)

    monkeypatch.setattr(training, "warm_context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr(training, "take_steps", die)
    assert training._measure(job(site, site.run), site.root).what == what


def test_a_round_longer_than_the_run_waits_fails_and_scarce_memory_is_a_warning(site):
    timing = Timing(seconds=120, pairs=4, peak_bytes=900 << 20, device_bytes=0, device_total_bytes=0, parameters=1)
    short = dataclasses.replace(site.run.federation, local_steps=100, round_timeout_s=7200)
    run = dataclasses.replace(site.run, federation=short)
    found = training._judge(run, timing, 0)
    assert (found.status, found.what) == (
        "fail",
        "4 pairs in 1.2e+02 s, 900 MiB of memory; a round of 100 steps takes about 3.3 h, and the run waits 2.0 h",
    )
    quick = dataclasses.replace(timing, seconds=0.5)
    assert training._judge(run, quick, 0).status == "pass"
    found = training._judge(run, quick, 1.0)
    assert (found.status, found.what.endswith(", of at most 1.0 GiB")) == ("warn", True)
    found = training._judge(run, dataclasses.replace(quick, device_bytes=70 << 30, device_total_bytes=80 << 30), 0)
    assert (found.status, "70.0 GiB of the device's" in found.what) == ("warn", True)


def test_a_run_without_rounds_has_no_step_to_time(site, tmp_path):
    site.run = read_run(run_file(tmp_path, "federation.rounds=0"))
    assert site.find("step").what == "the run has no rounds of pre-training, so there is no step to time"
