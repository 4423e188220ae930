"""`mumc-privacy plan`, as a privacy officer types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.privacy.cli import app
from client.privacy.errors import BudgetExceededError, PlanError
from client.privacy.ledger import Ledger
from tests.client.privacy.officer import PATIENTS, approved_site, charge, write_site

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = "plan --patients 5000 --batch 64 --delta 1e-5"
WORK = f"{NUMBERS} --steps 50 --rounds 100 --noise 1"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def run(words):
    """What the command printed; what it raised is raised again."""
    found = CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def numbers(words):
    return json.loads(run(f"{words} --json"))


def test_json_holds_the_numbers_of_the_plan_and_of_where_it_stops():
    found = numbers(f"{WORK} --cap 5.576")
    assert found["epsilon"] == pytest.approx(5.576, abs=5e-4)
    assert found["epsilon_rdp"] == pytest.approx(6.071, abs=5e-4)
    assert (found["noise_multiplier"], found["sample_rate"]) == (1.0, 0.0128)
    assert (found["stops_at_step"], found["stops_at_round"]) == (4275, 86)


def test_without_a_cap_it_stops_nowhere_and_steps_are_all_steps_without_rounds():
    found = numbers(f"{NUMBERS} --steps 5000 --noise 1")
    assert found["stops_at_step"] is None
    assert found["epsilon"] == pytest.approx(5.576, abs=5e-4)


def test_an_epsilon_gives_the_noise_that_keeps_it():
    found = numbers(f"{NUMBERS} --steps 5000 --epsilon 3")
    assert 2.999 < found["epsilon"] <= 3.0
    assert found["noise_multiplier"] > 1


def test_the_table_says_in_words_what_json_says_in_numbers():
    text = run(f"{WORK} --cap 5.576")
    for words in ("one patient of about 5,000", "5.576 by PLD", "6.071 by RDP", "4,275 of 5,000", "no runs here yet"):
        assert words in text


def test_the_second_answer_is_the_first(tmp_path):
    assert run(f"{WORK} --json") == run(f"{WORK} --json")
    assert len(list((tmp_path / "cache" / "fedmumc" / "plans").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan --patients 100 --batch 10 --steps 5 --noise 1 --delta 0.1", r"100 patients.*0\.001"),
        ("plan --patients 100 --batch 101 --steps 5 --noise 1 --delta 1e-6", "101"),
        (f"{NUMBERS} --steps 5", "neither"),
        (f"{NUMBERS} --steps 5 --noise 1 --epsilon 2", "both"),
        (f"{NUMBERS} --steps 5 --epsilon -2", "epsilon is -2"),
        (f"{NUMBERS} --steps 5 --noise 1 --plot plan.pdf", r"\.svg or \.png"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, message):
    with pytest.raises(PlanError, match=message):
        run(words)


def test_a_plot_is_drawn_where_it_was_asked_for(tmp_path):
    run(f"{WORK} --cap 5.576 --plot {tmp_path / 'plan.svg'}")
    assert "round 86 is refused" in (tmp_path / "plan.svg").read_text()


def at_site(root, *, steps=50, rounds=100, more=""):
    return (
        f"plan --patients 1000 --batch 64 --delta 1e-6 --steps {steps} --rounds {rounds} --noise 2 --site {root} {more}"
    )


def test_what_the_sites_ledger_has_charged_counts_first_and_its_policy_is_the_cap(tmp_path):
    root = approved_site(tmp_path / "site")
    before = numbers(at_site(root))
    Ledger.open(root).reserve(charge(steps=300), units=PATIENTS)
    after = numbers(at_site(root))
    assert before["cap"] == after["cap"] == 6.0
    assert before["epsilon_spent"] == 0
    assert after["epsilon_spent"] == pytest.approx(Ledger.open(root).epsilon())
    assert after["stops_at_step"] == before["stops_at_step"] - 300
    assert after["epsilon"] == before["epsilon"]


def test_the_ledger_lets_in_the_step_that_the_planner_names_and_none_after_it(tmp_path):
    root = approved_site(tmp_path / "site")
    Ledger.open(root).reserve(charge(steps=300), units=PATIENTS)
    last = numbers(at_site(root))["stops_at_step"]
    ledger = Ledger.open(root)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(charge(round=2, steps=last + 1), units=PATIENTS)
    ledger.reserve(charge(round=2, steps=last), units=PATIENTS)
    with pytest.raises(BudgetExceededError, match="nothing more fits"):
        run(at_site(root, more=f"--cap {ledger.epsilon()}"))


def test_a_cap_that_is_given_goes_before_the_policys(tmp_path):
    root = approved_site(tmp_path / "site")
    assert numbers(at_site(root, more="--cap 3"))["cap"] == 3


def test_a_plan_at_another_delta_than_the_sites_policy_is_refused(tmp_path):
    root = approved_site(tmp_path / "site")
    with pytest.raises(PlanError, match=r"counts at delta=1e-06.*for 1e-05.*--delta 1e-06"):
        run(at_site(root).replace("--delta 1e-6", "--delta 1e-5"))


def test_a_site_without_a_policy_has_spent_nothing_and_has_no_cap(tmp_path):
    found = numbers(at_site(write_site(tmp_path / "site")))
    assert found["epsilon_spent"] == 0
    assert found["cap"] is None


def test_a_refusal_is_one_line_and_not_a_traceback():
    words = ["plan", "--patients", "100", "--batch", "10", "--steps", "5", "--noise", "1", "--delta", "0.1"]
    code = "from client.privacy.cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "mumc-privacy: delta 0.1 is too large for 100 patients; choose at most 1/(10 N) = 0.001\n"


def test_the_help_needs_no_accountant():
    code = (
        "import sys\nfrom client.privacy.cli import app\n"
        "try:\n    app(['plan', '--help'])\n"
        "except SystemExit:\n    print(sorted({'torch', 'numpy', 'scipy', 'dp_accounting'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
