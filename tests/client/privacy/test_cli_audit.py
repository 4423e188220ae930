"""`mumc-privacy audit`, as a privacy officer types it."""

import json

import pytest
from typer.testing import CliRunner

from client.privacy import audit as audit_module
from client.privacy import cli_audit
from client.privacy.cli import app
from client.privacy.errors import PlanError
from client.privacy.membership import MembershipResult
from client.privacy.randomness import SecureSource
from tests.client.privacy.audit_mutations import halved_noise

WORDS = "audit --canaries 1000"


@pytest.fixture(autouse=True)
def known_coins(monkeypatch):
    """A wide terminal, and the same audit every time."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(audit_module, "SecureSource", lambda: SecureSource(bytes(32)))


def run(words, code=0):
    found = CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert found.exit_code == code, found.output
    return found.output


def test_json_holds_the_bound_beside_the_claim():
    found = json.loads(run(f"{WORDS} --json"))
    assert found["pass"] is True
    assert found["lower_bound"] <= found["claimed_epsilon"] == pytest.approx(4.377, abs=1e-3)
    assert found["effect_size_expected"] == pytest.approx(0.861, abs=5e-4)
    keys = {"effect_size", "delta", "canaries", "confidence", "mechanism", "seconds", "checks", "grad_sample"}
    assert keys <= found.keys()
    assert (found["canaries"], found["trainer"]) == (1000, "pretrain")
    assert json.loads(run(f"{WORDS} --trainer finetune --json"))["trainer"] == "finetune"
    assert json.loads(run("audit --canaries 200 --trainer metrics --json"))["trainer"] == "metrics"


def test_the_table_says_it_in_words():
    text = run(WORDS)
    for words in ("PASSED", "epsilon 4.38 at delta 1e-05", "epsilon is at least", "1,000 made-up patients", "noise"):
        assert words in text
    assert "WRONG" not in text


def test_a_fault_is_named_and_the_command_ends_with_1(monkeypatch):
    halved_noise(monkeypatch)
    text = run(WORDS, code=1)
    assert "FAILED: do not train on patients" in text
    assert "privacy is weaker than claimed" in text
    assert json.loads(run(f"{WORDS} --json", code=1))["pass"] is False


@pytest.mark.parametrize("way", ["hooks", "opacus", "loop"])
def test_each_way_of_clipping_can_be_audited(way):
    assert json.loads(run(f"audit --canaries 200 --grad-sample {way} --json"))["grad_sample"] == way


def test_an_attack_needs_a_model_its_site_and_another():
    assert "all of --model, --site and --non-members" in run("audit --model m --site s", code=2)


def test_an_attack_is_reported_after_the_audit(monkeypatch):
    result = MembershipResult(
        auc=0.5,
        auc_low=0.4,
        auc_high=0.6,
        true_positive_rate=0.0,
        false_positive_rate=0.0,
        members=9,
        non_members=8,
    )
    asked = []
    monkeypatch.setattr(cli_audit, "_attack", lambda *folders, quiet: asked.append(folders) or result)
    words = f"{WORDS} --model m --site s --non-members o"
    assert "proves nothing" in run(words)
    assert json.loads(run(f"{words} --json"))["membership"]["members"] == 9
    assert [str(folder) for folder in asked[0]] == ["m", "s", "o"]


def test_too_few_canaries_are_refused():
    with pytest.raises(PlanError, match="7 canaries"):
        run("audit --canaries 7")
