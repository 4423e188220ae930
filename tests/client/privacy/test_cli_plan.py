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
from tests.client.privacy.past_runs import write_report

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = "plan --patients 5000 --batch 64 --delta 1e-5"
WORK = f"{NUMBERS} --steps 50 --rounds 100 --noise 1"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
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
    for words in ("one patient of about 5,000", "5.576 by PLD", "6.071 by RDP", "4,275 of 5,000", "no runs yet"):
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


def test_a_plan_that_fits_the_sites_policy_is_said_to_fit_with_what_it_would_bring_the_budget_to(tmp_path):
    root = approved_site(tmp_path / "site")
    site = numbers(at_site(root, rounds=2))["site"]
    differing = ("patients_differ", "delta_differs", "noise_too_low", "batch_too_large", "expired", "refused")
    assert not any(site[name] for name in differing)
    assert (site["stops_at_step"], site["stops_at_round"], site["cap"]) == (None, None, 6.0)
    assert "the whole plan fits" in run(at_site(root, rounds=2))
    ledger = Ledger.open(root)
    ledger.reserve(charge(steps=100), units=PATIENTS)
    assert site["epsilon_after"] == pytest.approx(ledger.epsilon())


def test_the_remaining_budget_stops_a_plan_at_the_round_that_the_ledger_refuses(tmp_path):
    root = approved_site(tmp_path / "site")
    Ledger.open(root).reserve(charge(steps=300), units=PATIENTS)
    words = at_site(root, steps=2000, rounds=10)
    found = numbers(words)
    site = found["site"]
    assert (site["stops_at_step"], site["stops_at_round"]) == (found["stops_at_step"], found["stops_at_round"])
    assert site["epsilon_remaining"] == pytest.approx(6 - site["epsilon_spent"]) == Ledger.open(root).remaining()
    assert f"round {site['stops_at_round']} is REFUSED" in run(words)
    ledger = Ledger.open(root)
    for number in range(1, site["stops_at_round"]):
        ledger.reserve(charge(round=1 + number, steps=2000), units=PATIENTS)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(charge(round=1 + site["stops_at_round"], steps=2000), units=PATIENTS)


def test_a_plan_for_other_numbers_than_the_policys_is_told_what_the_site_counts_with(tmp_path):
    words = at_site(approved_site(tmp_path / "site")).replace("1000", "800").replace("--delta 1e-6", "--delta 1e-5")
    site, text = numbers(words)["site"], run(words)
    assert (site["patients_differ"], site["delta_differs"], site["sample_rate"]) == (True, True, 0.064)
    assert "the plan is for 800 patients and the policy declares 1,000" in text
    assert "probability 0.064, not 0.08" in text
    assert "the plan is at delta 1e-05 and the policy counts at 1e-06" in text
    assert numbers(words)["cap"] is None


def test_noise_under_the_policys_floor_a_batch_above_its_units_and_its_end_are_refusals(tmp_path):
    root = approved_site(tmp_path / "site", noise_multiplier=2.5, units=50, expires="2021-01-01")
    site, text = numbers(at_site(root))["site"], run(at_site(root))
    assert (site["noise_too_low"], site["batch_too_large"], site["expired"], site["refused"]) == (True,) * 4
    assert site["epsilon_after"] is None
    for words in ("the noise is 2, and the policy asks for at least 2.5", "a batch of 64", "the policy ended on 2021"):
        assert f"REFUSED: {words}" in text


def test_a_site_without_a_policy_has_spent_nothing_and_has_no_cap(tmp_path):
    words = at_site(write_site(tmp_path / "site"))
    found = numbers(words)
    assert found["epsilon_spent"] == 0
    assert found["cap"] is None
    assert found["site"] is None
    assert "mumc-privacy approve" in found["site_problem"]
    assert "REFUSED: this site has no signed privacy policy" in run(words)


def test_a_policy_that_was_edited_is_said_and_counts_for_nothing(tmp_path):
    root = approved_site(tmp_path / "site")
    path = root / "site.yaml"
    path.write_text(path.read_text().replace("epsilon: 6", "epsilon: 60"))
    found = numbers(at_site(root))
    assert (found["cap"], found["site"]) == (None, None)
    assert "not signed as it stands" in found["site_problem"]


def test_own_runs_are_read_from_outputs_or_from_the_folder_that_is_named(tmp_path):
    write_report(Path("outputs") / "first", epsilon=3.0)
    write_report(tmp_path / "other" / "second", epsilon=8.0)
    found = numbers(WORK)
    assert [own["run"] for own in found["own_runs"]] == ["first"]
    assert (found["own_runs_found"], found["own_runs_problems"]) == (1, [])
    named = f"{WORK} --runs {tmp_path / 'other'}"
    assert [own["run"] for own in numbers(named)["own_runs"]] == ["second"]
    assert "41.0 % of 200 answers right" in run(named)


def test_without_runs_there_are_none():
    found = numbers(WORK)
    assert (found["own_runs"], found["own_runs_found"], found["own_runs_problems"]) == ([], 0, [])


def test_a_folder_of_runs_that_is_not_there_or_holds_nothing_that_can_be_read_is_an_error(tmp_path):
    with pytest.raises(PlanError, match="there is no folder"):
        run(f"{WORK} --runs {tmp_path / 'nowhere'}")
    write_report(tmp_path / "runs" / "one").write_text("{")
    with pytest.raises(PlanError, match=r"no report of .* can be read; .*report\.json: it is not JSON"):
        run(f"{WORK} --runs {tmp_path / 'runs'}")


def test_what_a_report_names_is_shown_as_it_stands():
    write_report(Path("outputs") / "[red]run", arm="[bold]arm")
    assert "[bold]arm in [red]run" in run(WORK)


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
