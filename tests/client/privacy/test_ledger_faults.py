"""Every point at which a process can die while it writes, and processes that write at once."""

import errno
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from client.privacy.accounting import epsilon_rdp
from client.privacy.errors import LedgerError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from tests.client.privacy.ledger_process import LONG, SCENARIOS, SHORT
from tests.client.privacy.officer import CHARGE, PATIENTS, STEPS, approved_site, charge, steps_of

ROOT = Path(__file__).resolve().parents[3]
ROWS = Path("state/privacy/ledger.jsonl")


def process(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.client.privacy.ledger_process", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """For each scenario, what every reopened ledger said."""
    child = process("kill", tmp_path_factory.mktemp("killed"))
    printed = child.communicate()[0]
    assert child.returncode == 0
    return json.loads(printed)


def by_moment(points):
    assert all(point["killed"] for point in points[:-1])
    assert points[-1]["status"] == 0
    return [point for point in points if point["killed"]], points[-1]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_ledger_goes_on_after_a_kill_at_any_point(killed, scenario):
    deaths, _ = by_moment(killed[scenario])
    assert {"within write", "before fsync", "after fsync", "before replace"} <= {death["point"] for death in deaths}
    for point in killed[scenario]:
        assert point["head_kept"]
        assert point["steps_then"] == point["steps"] + 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_changes_nothing_that_was_acknowledged_before(killed, scenario):
    prepared = [] if scenario == "the first approval" else ["approved", "reserved"]
    for point in killed[scenario]:
        assert point["rows"][: len(prepared)] == prepared
        assert len(point["rows"]) <= len(prepared) + 1 + ("torn" in scenario)


@pytest.mark.parametrize("scenario", ["reserve", "reserve after a torn row"])
def test_a_killed_reservation_counts_in_full_or_not_at_all_and_never_twice(killed, scenario):
    deaths, done = by_moment(killed[scenario])
    assert done["steps"] == 2 * LONG
    assert {(death["steps"], death["charges"]) for death in deaths} == {(LONG, 1), (2 * LONG, 2)}


def test_a_killed_reconciliation_never_counts_less_than_was_done(killed):
    deaths, done = by_moment(killed["reconcile"])
    assert (done["steps"], done["charges"]) == (SHORT, 1)
    assert {(death["steps"], death["charges"]) for death in deaths} == {(LONG, 1), (SHORT, 1)}


def test_a_killed_withdrawal_is_either_there_or_not_and_once_acknowledged_there(killed):
    deaths, done = by_moment(killed["exclude"])
    assert done["excluded"]
    assert {death["excluded"] for death in deaths} == {True, False}


def test_a_torn_row_is_cut_off_and_noted(killed):
    _, done = by_moment(killed["open after a torn row"])
    assert done["rows"] == ["approved", "reserved", "recovered"]
    assert done["steps"] == LONG


def test_a_row_is_on_the_disk_before_the_registry_tells_of_it_and_units_before_the_row(tmp_path, monkeypatch):
    root = approved_site(tmp_path / "site")
    ledger, calls = Ledger.open(root), []

    def spy(name, real):
        def call(target, *rest, **kwargs):
            shown = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(rest[0])
            calls.append((name, Path(shown).suffix or Path(shown).name))
            return real(target, *rest, **kwargs)

        return call

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, spy(name, getattr(os, name)))
    ledger.reserve(CHARGE, units=PATIENTS)
    monkeypatch.undo()
    named = [call for call in calls if call[1] != ".partial"]
    at = named.index(("write", ".jsonl"))
    assert named[at - 2 :] == [
        ("replace", ".units"),
        ("fsync", "registry"),
        ("write", ".jsonl"),
        ("fsync", ".jsonl"),
        ("fsync", "privacy"),
        ("replace", ".head"),
        ("fsync", "registry"),
    ]


def test_what_a_killed_process_left_is_made_durable_before_the_registry_tells_of_it(tmp_path, monkeypatch, registry):
    root = approved_site(tmp_path / "site")
    (head,) = registry.glob("*.head")
    behind = head.read_bytes()
    Ledger.open(root).reserve(CHARGE, units=PATIENTS)
    head.write_bytes(behind)
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name))
    Ledger.open(root)
    assert calls[:2] == ["ledger.jsonl", "privacy"]
    assert head.read_bytes() != behind


@pytest.mark.parametrize("name", ["write", "fsync"])
def test_a_full_disk_charges_nothing_that_was_acknowledged_and_is_over_once_there_is_room(tmp_path, monkeypatch, name):
    root = approved_site(tmp_path / "site")
    ledger = Ledger.open(root)
    ledger.reserve(CHARGE, units=PATIENTS)
    real = os.write

    def full(handle, content=b""):
        real(handle, content[:7]) if content else None
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.reserve(CHARGE, units=PATIENTS)
    ledger.reserve(CHARGE, units=PATIENTS)
    assert steps_of(ledger) == steps_of(Ledger.open(root)) >= 2 * STEPS


@pytest.mark.e2e
def test_processes_that_charge_at_once_lose_no_row_and_never_pass_the_cap(tmp_path):
    root = approved_site(tmp_path / "site", epsilon=4.0)
    children = [process("hammer", root, 200) for _ in range(2)]
    acknowledged = [json.loads(child.communicate()[0]) for child in children]
    ledger = Ledger.open(root)
    ids = [found.id for found in ledger.reservations]
    assert sorted(ids) == sorted(itertools.chain(*acknowledged))
    assert len(set(ids)) == len(ids)
    fits = len(ids) * LONG
    event = charge(fits).event
    assert epsilon_rdp([event], 1e-6, order=ledger.order) <= 4.0
    assert epsilon_rdp([charge(fits + LONG).event], 1e-6, order=ledger.order) > 4.0
    assert ledger.events() == (Event(sample_rate=0.064, noise_multiplier=2.0, steps=fits),)


def test_threads_that_charge_at_once_lose_no_row(tmp_path):
    root = approved_site(tmp_path / "site")
    ledgers = [Ledger.open(root) for _ in range(4)]
    threads = [
        threading.Thread(target=ledger.reserve, args=(CHARGE,), kwargs={"units": PATIENTS}) for ledger in ledgers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps_of(Ledger.open(root)) == 4 * STEPS
