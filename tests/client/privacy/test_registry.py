import shutil
import time

import pytest

from client.privacy.errors import LedgerError
from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from client.privacy.registry import HASH_BYTES, Registry
from protocol.hashchain import Head
from protocol.signing import new_key
from tests.client.privacy.officer import CHARGE, NAME, PATIENTS, approved_site, policy, write_site

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def opened(registry):
    found = Registry(registry)
    with found.locked():
        yield found


def test_the_registry_is_where_the_variable_says_else_in_the_home(registry, monkeypatch, tmp_path):
    assert Registry.here().folder == registry
    monkeypatch.delenv("MUMC_REGISTRY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Registry.here().folder == tmp_path / ".local/state/fedmumc/registry"


def test_a_head_is_kept_for_each_ledger(opened):
    assert opened.head(ONE) is None
    opened.keep_head(ONE, Head(3, "a" * 64))
    opened.keep_head(OTHER, Head(1, "b" * 64))
    opened.keep_head(ONE, Head(4, "c" * 64))
    assert (opened.head(ONE), opened.head(OTHER)) == (Head(4, "c" * 64), Head(1, "b" * 64))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"count": "x", "hash": ""}'])
def test_a_head_that_cannot_be_read_is_not_taken_for_none(opened, content):
    (opened.folder / f"{ONE}.head").write_bytes(content)
    with pytest.raises(LedgerError, match="backup of the registry"):
        opened.head(ONE)


def test_only_the_owner_can_look_into_the_registry_and_no_id_is_in_it(opened):
    opened.charge(ONE, ["patient-17"])
    assert opened.folder.stat().st_mode & 0o777 == 0o700
    assert (opened.folder / "units.key").stat().st_mode & 0o777 == 0o600
    assert not any(b"patient" in path.read_bytes() for path in opened.folder.iterdir())


def test_units_of_one_ledger_may_come_again_and_grow(opened):
    for units in (["p1"], ["p1", "p2"], ["p2"]):
        opened.charge(ONE, units)
    assert (opened.folder / f"{ONE}.units").stat().st_size == 2 * HASH_BYTES


def test_ledgers_share_no_unit_and_a_refused_charge_leaves_nothing_behind(opened):
    opened.charge(ONE, ["p1", "p2"])
    with pytest.raises(LedgerError, match="1 of these 2 units"):
        opened.charge(OTHER, ["p2", "p3"])
    opened.charge(OTHER, ["p3"])
    with pytest.raises(LedgerError, match="1 of these 1 units"):
        opened.charge(ONE, ["p3"])


def test_the_same_ids_hash_differently_on_another_machine(tmp_path):
    kept = []
    for name in ("one", "other"):
        registry = Registry(tmp_path / name)
        with registry.locked():
            registry.charge(ONE, PATIENTS)
        kept.append((registry.folder / f"{ONE}.units").read_bytes())
    assert kept[0] != kept[1]


def test_a_lost_or_open_key_is_not_replaced_in_silence(opened):
    opened.charge(ONE, PATIENTS)
    key = opened.folder / "units.key"
    key.chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        opened.charge(ONE, PATIENTS)
    key.unlink()
    with pytest.raises(LedgerError, match="is gone"):
        opened.charge(OTHER, PATIENTS)


def test_damaged_units_are_not_taken_for_none(opened):
    opened.charge(ONE, PATIENTS)
    path = opened.folder / f"{ONE}.units"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LedgerError, match="damaged"):
        opened.charge(OTHER, ["p9"])


def test_a_hundred_thousand_patients_take_less_than_a_second(opened):
    patients = [f"patient-{number}" for number in range(100_000)]
    opened.charge(OTHER, ["someone else"])
    began = time.process_time()
    opened.charge(ONE, patients)
    opened.charge(ONE, patients)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("copy", [True, False], ids=["copied without its ledger", "renamed and imported again"])
def test_a_copied_or_renamed_data_set_has_no_budget_of_its_own(tmp_path, copy):
    key = new_key()
    root = approved_site(tmp_path / "site", key)
    Ledger.open(root).reserve(CHARGE, units=PATIENTS)
    name = NAME if copy else "south"
    if copy:
        shutil.copytree(root, tmp_path / "new", ignore=shutil.ignore_patterns("state"))
    else:
        write_site(tmp_path / "new", name)
    ledger = Ledger.open(tmp_path / "new")
    ledger.approve(sign_policy(policy(1), name, key))
    with pytest.raises(LedgerError, match="copied or renamed data set has the same budget"):
        ledger.reserve(CHARGE, units=["p3", "p4"])
    assert ledger.events() == ()


def test_sites_with_other_patients_have_budgets_of_their_own(tmp_path):
    for number in (1, 2):
        root = approved_site(tmp_path / f"site {number}")
        Ledger.open(root).reserve(CHARGE, units=[f"{number}-{patient}" for patient in PATIENTS])
        assert len(Ledger.open(root).reservations) == 1
