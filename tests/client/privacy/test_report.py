import json
import math
import re
from html.parser import HTMLParser

import pytest

from client.privacy.accounting import epsilon_pld, posterior
from client.privacy.errors import PlanError, PolicyError
from client.privacy.ledger import Ledger
from client.privacy.report import OFFICER, build, read_audit, uncharged_runs, value
from client.privacy.report_files import PAGE, SIGNATURE, VALUES, check, write
from client.privacy.report_html import findings, to_html
from client.privacy.report_numbers import true_positives, true_positives_at_cap
from client.privacy.report_plots import draw_plots
from protocol.errors import SignatureError
from protocol.signing import new_key, public_hex
from tests.client.privacy.officer import CHARGE, NAME, POLICY, approved_site, charge, write_site

DAY = "2027-01-02"
AUDIT = {
    "pass": True,
    "claimed_epsilon": 4.377,
    "lower_bound": 3.9,
    "one_run_lower_bound": 2.1,
    "delta": 1e-5,
    "confidence": 0.999,
    "one_run_confidence": 0.95,
    "effect_size": 0.86,
    "effect_size_expected": 0.861,
    "canaries": 10_000,
    "trainer": "finetune",
    "grad_sample": "hooks",
}


class Page(HTMLParser):
    """The text of every cell that has a name, and of every row of the tables."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.rows, self._name, self._inside = {}, [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._name, self._inside = dict(attrs).get("data-cell"), True
            self.rows[-1].append("")
            if self._name:
                self.cells[self._name] = ""

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data
        if self._name:
            self.cells[self._name] += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._name, self._inside = None, False


@pytest.fixture(scope="module")
def officer():
    return new_key()


@pytest.fixture
def ledger(tmp_path, officer):
    """Two runs: a round that was cut short, a whole one, and one that is still reserved."""
    ledger = Ledger.open(approved_site(tmp_path / "site", officer))
    patients = ["Jane Doe", "p2"]
    ledger.reconcile(ledger.reserve(charge(), units=patients), 13)
    ledger.reconcile(ledger.reserve(charge(round=2), units=patients), 20)
    ledger.reserve(charge(run="second", operator="<Bob>"), units=patients)
    ledger.exclude("Jane Doe")
    return ledger


@pytest.fixture
def written(tmp_path, ledger, officer):
    report = build(ledger, NAME, day=DAY, officer=public_hex(officer), audit=AUDIT)
    write(report, tmp_path / "out", ledger, officer)
    return tmp_path / "out"


def test_the_epsilons_are_those_of_the_ledger(ledger):
    report = build(ledger, NAME, day=DAY)
    assert value(report, "budget.spent_and_reserved") == ledger.epsilon() == report["charges"][-1]["epsilon"]
    assert value(report, "budget.remaining") == ledger.remaining()
    assert value(report, "budget.pld") == ledger.epsilon("pld")
    assert value(report, "budget.spent") == report["charges"][1]["epsilon"]
    assert (value(report, "budget.steps_done"), value(report, "budget.steps_reserved")) == (33, 20)
    assert value(report, "words.posterior") == posterior(ledger.epsilon())
    at_delta = {row["delta"]: row for row in report["over_delta"]}[POLICY.delta]
    assert (at_delta["rdp"], at_delta["pld"]) == (ledger.epsilon(), ledger.epsilon("pld"))
    assert report["runs"][1]["pld"] == epsilon_pld([CHARGE.event], POLICY.delta)
    assert (value(report, "ledger.head"), value(report, "ledger.key")) == (ledger.head.hash, ledger.public_key)


def test_as_many_rounds_as_are_promised_fit_and_no_more(tmp_path):
    ledger = Ledger.open(approved_site(tmp_path / "site", epsilon=3.2))
    ledger.reserve(charge(), units=["p1"])
    left = value(build(ledger, NAME, day=DAY), "budget.rounds_left")
    for number in range(left):
        ledger.reserve(charge(round=number + 2), units=["p1"])
    assert left > 0
    assert value(build(ledger, NAME, day=DAY), "budget.rounds_left") == 0


def test_the_page_shows_the_values_and_no_other_numbers(written):
    page, report = Page((written / PAGE).read_text()), json.loads((written / VALUES).read_text())
    assert page.cells == {cell["id"]: cell["text"] for cell in report["cells"]}
    shown = [row for row in page.rows if len(row) == 11][1:]
    assert [float(row[-1]) for row in shown] == pytest.approx([c["epsilon"] for c in report["charges"]], abs=1e-3)
    assert all(float(row[-1]) >= c["epsilon"] for row, c in zip(shown, report["charges"], strict=True))
    assert shown[0][8:10] == ["13 of 20", "spent"]
    assert shown[2][8:10] == ["20", "reserved"]


def test_what_is_shown_promises_no_more_than_the_number(written):
    for cell in json.loads((written / VALUES).read_text())["cells"]:
        if cell["id"] in ("budget.spent", "budget.spent_and_reserved", "audit.claimed", "budget.pld"):
            assert cell["value"] <= float(cell["text"].split()[0]) < cell["value"] + 1.1e-3
        if cell["id"] in ("budget.remaining", "budget.cap", "audit.measured"):
            assert cell["value"] - 1.1e-3 < float(cell["text"].split()[0]) <= cell["value"]


def test_no_patient_and_no_number_of_them_stands_in_it(written, ledger):
    for name in (PAGE, VALUES, SIGNATURE):
        text = (written / name).read_text()
        assert "Jane" not in text
        assert "Doe" not in text
        assert "<Bob>" not in (text if name == PAGE else "")
    report = json.loads((written / VALUES).read_text())
    ledger.exclude("p2")
    again = build(ledger, NAME, day=DAY, officer=ledger.officer, audit=AUDIT)
    changed = [a["id"] for a, b in zip(report["cells"], again["cells"], strict=True) if a != b]
    assert changed == ["ledger.head"]


def test_the_same_ledger_gives_the_same_bytes_and_another_one_another_name(tmp_path, written, ledger, officer):
    before = {name: (written / name).read_bytes() for name in (PAGE, VALUES, SIGNATURE)}
    write(build(ledger, NAME, day=DAY, officer=ledger.officer, audit=AUDIT), tmp_path / "again", ledger, officer)
    assert before == {name: (tmp_path / "again" / name).read_bytes() for name in before}
    ledger.reserve(charge(round=9), units=["p2"])
    assert build(ledger, NAME, day=DAY)["id"] != json.loads(before[VALUES])["id"]


def test_a_page_names_nothing_twice_and_loads_nothing(written):
    page = (written / PAGE).read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert page.count("<svg") == 2
    assert not re.search(r'(src|href)="(?!#)|@import|<script|url\((?!#)', page)


def test_what_was_signed_verifies(written, officer):
    report = check(written, public_hex(officer))
    assert [row["who"] for row in report["signers"]] == ["the site's ledger", OFFICER]


@pytest.mark.parametrize("name", [PAGE, VALUES, SIGNATURE])
def test_an_edit_of_any_byte_fails(written, name):
    content = (written / name).read_bytes()
    places = range(0, len(content), max(1, len(content) // 30))
    for place in [*places, len(content) - 1]:
        edited = bytearray(content)
        edited[place] ^= 1
        (written / name).write_bytes(edited)
        with pytest.raises(SignatureError):
            check(written)
    (written / name).write_bytes(content + b"\n")
    with pytest.raises(SignatureError):
        check(written)


def test_a_signature_that_is_left_out_or_made_by_another_key_fails(tmp_path, written, ledger, officer):
    with pytest.raises(SignatureError, match="not signed by that officer"):
        check(written, public_hex(new_key()))
    signed = json.loads((written / SIGNATURE).read_text())
    kept = {**signed, "signatures": signed["signatures"][:1]}
    (written / SIGNATURE).write_text(json.dumps(kept, indent=1) + "\n")
    with pytest.raises(SignatureError, match="other signers"):
        check(written)
    (written / SIGNATURE).unlink()
    with pytest.raises(SignatureError, match="cannot be read"):
        check(written)


def test_only_the_officer_of_the_site_signs_beside_it(ledger):
    with pytest.raises(PolicyError, match="not this site's privacy officer's"):
        build(ledger, NAME, day=DAY, officer=public_hex(new_key()))


def test_a_ledger_without_a_charge_says_so(tmp_path):
    report = build(ledger := Ledger.open(approved_site(tmp_path / "site")), NAME, day=DAY)
    page = to_html(report, draw_plots(report))
    assert "Nothing was charged" in page
    assert (value(report, "budget.spent_and_reserved"), value(report, "budget.remaining")) == (0, POLICY.epsilon)
    assert value(report, "words.true_positive_rate") == 0.01
    write(report, tmp_path / "out", ledger)
    assert check(tmp_path / "out")["charges"] == []


def test_a_site_without_a_policy_gets_a_report_that_says_so(tmp_path):
    ledger = Ledger.open(write_site(tmp_path / "site"))
    report = build(ledger, NAME, day=DAY)
    assert "no signed privacy policy" in to_html(report, draw_plots(report))
    assert (report["charges"], report["runs"]) == ([], [])
    write(report, tmp_path / "out", ledger)
    check(tmp_path / "out")


def test_the_test_that_epsilon_allows_is_bounded_as_a_gaussian_step_bounds_it():
    event = CHARGE.event
    found = true_positives([event], 20.0, 1e-6)
    assert 0.01 < found < 0.5
    assert true_positives([event, event], 20.0, 1e-6) > found
    assert true_positives_at_cap(6.0, 1e-6, None) == pytest.approx(1 - math.exp(-6) * (1 - 0.01 - 1e-6))


def test_at_a_cap_that_is_used_up_both_bounds_are_the_same(tmp_path):
    ledger = Ledger.open(approved_site(tmp_path / "site"))
    ledger.reserve(charge(), units=["p1"])
    found = true_positives(ledger.events(), ledger.order, POLICY.delta)
    assert found == pytest.approx(true_positives_at_cap(ledger.epsilon(), POLICY.delta, ledger.order))


def test_runs_that_were_not_charged_are_named(tmp_path, ledger):
    root = tmp_path / "site"
    assert uncharged_runs(root) == []
    (root / "state/uncharged.jsonl").write_text('{"run": "old", "base": ""}\n{"run": "old", "base": "ab"}\n')
    report = build(ledger, NAME, day=DAY, uncharged=uncharged_runs(root))
    assert value(report, "ledger.uncharged") == ["old"]
    assert "without differential privacy at this site (1)" in to_html(report, {})


def test_of_an_audit_nothing_about_patients_is_taken_over(tmp_path):
    path = tmp_path / "audit.json"
    path.write_text(json.dumps({**AUDIT, "membership": {"auc": 0.6}, "seconds": 3.1, "checks": []}))
    assert read_audit(path) == AUDIT


def test_a_report_says_of_what_part_of_the_program_its_audit_was(ledger):
    report = build(ledger, NAME, day=DAY, audit=AUDIT)
    assert value(report, "audit.trainer") == "finetune"
    assert "The audit of the steps of private fine-tuning: passed." in findings(report)
    metrics = build(ledger, NAME, day=DAY, audit={**AUDIT, "trainer": "metrics", "grad_sample": "", "pass": False})
    assert "The audit of the release of an accuracy with noise: FAILED." in findings(metrics)


NO_AUDITS = [
    "",
    "[]",
    "{}",
    '{"delta": NaN}',
    *(json.dumps({**AUDIT, **wrong}) for wrong in ({"pass": "yes"}, {"trainer": "all"})),
]


@pytest.mark.parametrize("text", NO_AUDITS)
def test_what_is_no_audit_is_refused(tmp_path, text):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(PlanError, match="audit"):
        read_audit(tmp_path / "audit.json")
