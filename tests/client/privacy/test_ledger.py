import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client.privacy.accounting import RDP_NAME, epsilon_pld, epsilon_rdp
from client.privacy.errors import BudgetExceededError, LedgerError, PolicyError
from client.privacy.event import Event
from client.privacy.ledger import Ledger, excluded_units
from client.privacy.ledger_rows import code_digest
from client.privacy.policy import read_policy, sign_policy, write_policy
from protocol.hashchain import Head
from protocol.signing import new_key, public_hex
from tests.client.privacy.officer import (
    CHARGE,
    NAME,
    PATIENTS,
    STEPS,
    approved_site,
    charge,
    policy,
    steps_of,
    write_site,
)

ROOT = Path(__file__).resolve().parents[3]
KEY = new_key()
ROWS = Path("state/privacy/ledger.jsonl")


@pytest.fixture
def root(tmp_path):
    return approved_site(tmp_path / "site", KEY)


def rows(root):
    return [json.loads(line) for line in (root / ROWS).read_text().splitlines()]


def test_a_site_that_never_charged_anything_has_an_empty_ledger_and_no_new_file(tmp_path):
    root = write_site(tmp_path / "site")
    ledger = Ledger.open(root)
    assert (ledger.head, ledger.events(), excluded_units(root, PATIENTS)) == (Head(), (), set())
    assert [path.name for path in root.iterdir()] == ["site.yaml"]


def test_a_charge_counts_in_full_until_it_is_reconciled(root):
    ledger = Ledger.open(root)
    ids = [ledger.reserve(charge(round=number), units=PATIENTS) for number in (1, 2)]
    assert (steps_of(ledger), ledger.spent()) == (2 * STEPS, ())
    ledger.reconcile(ids[0], 5)
    assert sum(event.steps for event in ledger.spent()) == 5
    assert sum(event.steps for event in ledger.reserved()) == STEPS
    assert steps_of(Ledger.open(root)) == 5 + STEPS


def test_epsilon_is_that_of_the_accountants_at_the_policys_delta(root):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    assert ledger.epsilon() == epsilon_rdp([CHARGE.event], 1e-6, order=ledger.order)
    assert ledger.epsilon("pld") == epsilon_pld([CHARGE.event], 1e-6)
    assert ledger.epsilon("pld") < ledger.epsilon() < 6.0
    assert ledger.remaining() == 6.0 - ledger.epsilon()


def rounds_until_refused(ledger):
    """How many rounds count when the cap stops the next one."""
    for number in range(2, 1000):
        try:
            ledger.reserve(charge(round=number), units=PATIENTS)
        except BudgetExceededError:
            return number - 1
    raise AssertionError("the cap stopped nothing")


def test_the_order_is_the_one_at_which_most_such_rounds_fit_and_is_never_changed(root):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    order = ledger.order
    rounds = rounds_until_refused(ledger)
    assert rounds > 1
    assert ledger.order == order == Ledger.open(root).order
    filled = Event(sample_rate=0.064, noise_multiplier=2.0, steps=STEPS * rounds)
    over = Event(sample_rate=0.064, noise_multiplier=2.0, steps=STEPS * (rounds + 1))
    assert epsilon_rdp([filled], 1e-6) <= 6.0 < epsilon_rdp([over], 1e-6)


def test_work_above_the_cap_is_refused_with_its_numbers_and_nothing_is_charged(root):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    before = ledger.head
    with pytest.raises(BudgetExceededError) as refused:
        ledger.reserve(charge(steps=5000, round=7), units=PATIENTS)
    after = epsilon_rdp([charge(steps=5000 + STEPS).event], 1e-6, order=ledger.order)
    assert str(refused.value) == (
        f"round 7 would raise epsilon from {ledger.epsilon():.3f} to {after:.3f} at delta=1e-06, above this site's "
        "limit 6.000; raise the noise multiplier, train fewer rounds, or ask the privacy officer"
    )
    assert Ledger.open(root).head == before


def test_the_same_round_done_again_is_a_new_charge(root):
    ledger = Ledger.open(root)
    first, second = (ledger.reserve(CHARGE, units=PATIENTS) for _ in range(2))
    assert first != second
    assert steps_of(ledger) == 2 * STEPS


def test_a_row_says_what_an_auditor_asks_for(root):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    row = rows(root)[-1]
    expected = {
        "kind": "reserved",
        "run": "trial",
        "round": 1,
        "attempt": 1,
        "purpose": "pretrain",
        "unit": "patient",
        "clipping_norm": 1.0,
        "expected_batch": 64,
        "operator": "server",
        "accountant": RDP_NAME,
        "delta": 1e-6,
        "epsilon_after": ledger.epsilon(),
        "code": code_digest(),
        "event": CHARGE.event.to_dict(),
    }
    assert expected.items() <= {**row, "event": row["event"]}.items()
    assert {"mechanism", "adjacency", "sample_rate", "noise_multiplier", "steps"} == row["event"].keys()
    assert not any(patient in (root / ROWS).read_text() for patient in PATIENTS)


@pytest.mark.parametrize("steps", [-1, STEPS + 1, 1.5, True])
def test_more_than_was_reserved_or_less_than_nothing_is_not_reconciled(root, steps):
    ledger = Ledger.open(root)
    reservation = ledger.reserve(CHARGE, units=PATIENTS)
    with pytest.raises(LedgerError, match="reserved"):
        ledger.reconcile(reservation, steps)
    assert steps_of(Ledger.open(root)) == STEPS


def test_a_reservation_is_reconciled_once(root):
    ledger = Ledger.open(root)
    reservation = ledger.reserve(CHARGE, units=PATIENTS)
    ledger.reconcile(reservation, 8)
    with pytest.raises(LedgerError, match="reconciled already, to 8 steps"):
        Ledger.open(root).reconcile(reservation, 0)
    assert steps_of(Ledger.open(root)) == 8


def test_what_was_never_reserved_is_not_reconciled(root):
    with pytest.raises(LedgerError, match="no such reservation"):
        Ledger.open(root).reconcile("0" * 64, 1)


def test_a_charge_names_the_units_that_it_may_touch(root):
    with pytest.raises(LedgerError, match="names no unit"):
        Ledger.open(root).reserve(CHARGE, units=())


def test_nothing_is_charged_without_a_policy(tmp_path):
    root = write_site(tmp_path / "site")
    with pytest.raises(PolicyError, match="mumc-privacy approve"):
        Ledger.open(root).reserve(CHARGE, units=PATIENTS)


def test_a_policy_that_was_only_written_into_site_yaml_counts_for_nothing(tmp_path):
    root = write_site(tmp_path / "site")
    write_policy(root, sign_policy(policy(), NAME, KEY))
    with pytest.raises(PolicyError, match="not the one that was approved last"):
        Ledger.open(root).reserve(CHARGE, units=PATIENTS)


def test_an_earlier_and_larger_cap_cannot_be_put_back(root):
    larger = (root / "site.yaml").read_text()
    old = read_policy(root)
    Ledger.open(root).approve(sign_policy(policy(1, epsilon=1.0), NAME, KEY))
    (root / "site.yaml").write_text(larger)
    with pytest.raises(PolicyError, match="not the one that was approved last"):
        Ledger.open(root).remaining()
    with pytest.raises(PolicyError, match="something newer is in force"):
        Ledger.open(root).approve(old)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "record"}, "single records"),
        ({"event": Event(sample_rate=0.01, noise_multiplier=0.4, steps=1)}, "at least 0.5"),
    ],
)
def test_work_that_is_weaker_than_the_policy_is_refused(tmp_path, changes, words):
    root = approved_site(tmp_path / "site", KEY, noise_multiplier=0.5)
    values = {**{name: getattr(CHARGE, name) for name in CHARGE.__dataclass_fields__}, **changes}
    with pytest.raises(PolicyError, match=words):
        Ledger.open(root).reserve(type(CHARGE)(**values), units=PATIENTS)


def test_a_cap_below_what_was_spent_is_refused(root):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    with pytest.raises(PolicyError, match=f"epsilon {ledger.epsilon():.3f} .* is spent or reserved already"):
        ledger.approve(sign_policy(policy(1, epsilon=ledger.epsilon() - 0.01), NAME, KEY))
    ledger.approve(sign_policy(policy(1, epsilon=ledger.epsilon() + 0.01), NAME, KEY))
    with pytest.raises(BudgetExceededError):
        ledger.reserve(CHARGE, units=PATIENTS)


def test_another_officers_key_cannot_approve_until_the_first_hands_over(root):
    other = new_key()
    ledger = Ledger.open(root)
    with pytest.raises(PolicyError, match="hand over first"):
        ledger.approve(sign_policy(policy(1), NAME, other))
    with pytest.raises(PolicyError, match="only the key that approved"):
        ledger.hand_over(public_hex(other), other)
    ledger.hand_over(public_hex(other), KEY)
    # A handover is signed now, so that what follows it is signed later.
    ledger.approve(sign_policy(policy(365 * 100, epsilon=7.0), NAME, other))
    assert Ledger.open(root).policy().epsilon == 7.0
    with pytest.raises(PolicyError, match="hand over first"):
        ledger.approve(sign_policy(policy(365 * 101), NAME, KEY))


def test_a_withdrawn_patient_is_known_by_a_hash_alone_and_cannot_be_charged(root):
    ledger = Ledger.open(root)
    ledger.exclude("p2")
    ledger.exclude("p2")
    assert excluded_units(root, ["p1", "p2", "p3"]) == {"p2"}
    assert [row["kind"] for row in rows(root)] == ["approved", "excluded"]
    assert "p2" not in (root / ROWS).read_text()
    with pytest.raises(LedgerError, match="1 of the units were withdrawn"):
        ledger.reserve(CHARGE, units=PATIENTS)
    ledger.reserve(CHARGE, units=["p1", "p3"])


def test_patients_can_withdraw_where_nobody_uses_differential_privacy(tmp_path, monkeypatch):
    root = write_site(tmp_path / "site")
    Ledger.open(root).exclude("p1")
    monkeypatch.setenv("MUMC_REGISTRY", str(tmp_path / "registry of another machine"))
    assert excluded_units(root, PATIENTS) == {"p1"}


def edited(lines):
    return [lines[0], lines[1].replace(b'"steps":20', b'"steps":10'), *lines[2:]]


@pytest.mark.parametrize(
    "damage",
    [
        edited,
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-1], lines[-1][:-20]],
        lambda lines: [*lines[:-1], lines[-1][:-1]],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:2], b"\n", *lines[2:]],
        lambda lines: [],
    ],
    ids=[
        "edited",
        "cut",
        "cut in a row",
        "cut of its end",
        "reordered",
        "a row gone",
        "a row twice",
        "a blank line",
        "emptied",
    ],
)
def test_a_damaged_ledger_is_found_and_locks_the_site_without_being_touched(root, damage):
    ledger = Ledger.open(root)
    ids = [ledger.reserve(CHARGE, units=PATIENTS) for _ in range(3)]
    damaged = b"".join(damage((root / ROWS).read_bytes().splitlines(keepends=True)))
    (root / ROWS).write_bytes(damaged)
    for use in (
        lambda: Ledger.open(root),
        lambda: ledger.reserve(CHARGE, units=PATIENTS),
        lambda: ledger.reconcile(ids[0], 1),
        lambda: excluded_units(root, PATIENTS),
    ):
        with pytest.raises(LedgerError):
            use()
    assert (root / ROWS).read_bytes() == damaged


def test_a_restored_older_copy_of_the_folder_is_found(root, tmp_path):
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    shutil.copytree(root, tmp_path / "backup")
    ledger.reserve(CHARGE, units=PATIENTS)
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "backup", root)
    with pytest.raises(LedgerError, match="has 2 entries and had 3 before"):
        Ledger.open(root)


def test_two_copies_of_one_ledger_cannot_both_spend(root, tmp_path):
    shutil.copytree(root, tmp_path / "twin")
    twin = Ledger.open(tmp_path / "twin")
    Ledger.open(root).reserve(CHARGE, units=PATIENTS)
    with pytest.raises(LedgerError, match="older copy"):
        twin.reserve(CHARGE, units=PATIENTS)


@pytest.mark.parametrize("gone", ["ledger.jsonl", "ledger.key"])
def test_a_ledger_without_its_rows_or_its_key_is_not_begun_anew(root, gone):
    (root / "state/privacy" / gone).unlink()
    with pytest.raises(LedgerError, match="put"):
        Ledger.open(root)


def test_a_ledger_that_is_deleted_whole_does_not_reset_the_budget(root):
    Ledger.open(root).reserve(CHARGE, units=PATIENTS)
    shutil.rmtree(root / "state")
    anew = Ledger.open(root)
    anew.approve(sign_policy(policy(1), NAME, KEY))
    with pytest.raises(LedgerError, match="3 of these 3 units are charged to another ledger"):
        anew.reserve(CHARGE, units=PATIENTS)


def test_a_key_that_others_can_read_locks_the_site(root):
    (root / "state/privacy/ledger.key").chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        Ledger.open(root)


def test_an_anchored_head_stays_good_as_the_ledger_grows_and_finds_a_copy_on_a_new_machine(root, tmp_path, monkeypatch):
    ledger = Ledger.open(root)
    shutil.copytree(root, tmp_path / "old")
    ledger.reserve(CHARGE, units=PATIENTS)
    anchor = ledger.head.hash
    ledger.reserve(CHARGE, units=PATIENTS)
    ledger.check_anchor(anchor)
    ledger.check_anchor(Head().hash)
    monkeypatch.setenv("MUMC_REGISTRY", str(tmp_path / "new machine"))
    with pytest.raises(LedgerError, match=r"none of the ledger's .* rows is the one that the server last heard of"):
        Ledger.open(tmp_path / "old").check_anchor(anchor)
    with pytest.raises(LedgerError, match="written anew"):
        ledger.check_anchor("a" * 64)


def test_a_folder_moved_to_another_machine_goes_on_there(root, tmp_path, monkeypatch):
    Ledger.open(root).reserve(CHARGE, units=PATIENTS)
    monkeypatch.setenv("MUMC_REGISTRY", str(tmp_path / "new machine"))
    moved = Ledger.open(root)
    moved.reserve(CHARGE, units=PATIENTS)
    assert steps_of(Ledger.open(root)) == 2 * STEPS


def test_an_opened_ledger_sees_what_another_process_wrote_before_it_charges(root):
    one, other = Ledger.open(root), Ledger.open(root)
    reservation = one.reserve(CHARGE, units=PATIENTS)
    other.reserve(CHARGE, units=PATIENTS)
    other.reconcile(reservation, 3)
    with pytest.raises(LedgerError, match="already"):
        one.reconcile(reservation, 3)
    assert steps_of(one) == STEPS + 3


def test_the_ledger_loads_without_torch():
    code = "import sys, client.privacy.ledger, client.privacy.cli\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
