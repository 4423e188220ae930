"""Three private rounds, the second of them killed by the operating system and done again by a new process."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from client.privacy.accounting import epsilon_rdp
from client.privacy.budget import rounded_up
from client.privacy.ledger import Ledger
from tests.client.privacy.officer import policy
from tests.client.privacy.private_rounds import BATCH, SIGMA, UNITS, PrivateServer, approve, said

ROOT = Path(__file__).resolve().parents[3]
STEPS, CHARGES = 2, 4
"""Steps of a round; charges are rounds 1, 2 (killed), 2 again and 3."""
DELTA = policy().delta
EVENT = dp_accounting.PoissonSampledDpEvent(BATCH / UNITS, dp_accounting.GaussianDpEvent(SIGMA))


def process(folder, kill_after, *rounds):
    words = [sys.executable, "-m", "tests.client.privacy.round_process", folder, kill_after, *rounds]
    return subprocess.run(list(map(str, words)), cwd=ROOT, check=False).returncode


def by_rdp(steps, ledger):
    """The epsilon of so many steps by dp-accounting alone, at the order that the ledger has fixed."""
    return RdpAccountant([ledger.order]).compose(EVENT, steps).get_epsilon(DELTA)


def test_a_round_killed_after_its_reservation_counts_in_full_beside_the_round_done_again(untouched, tmp_path):
    folder, server = Path(shutil.copytree(untouched, tmp_path / "site")), PrivateServer()
    approve(folder)
    server.ask(folder, server.pretrain(1))
    assert process(folder, 1, 2) == -signal.SIGKILL
    ledger = Ledger.open(folder)
    assert [reservation.steps_done for reservation in ledger.reservations] == [STEPS, None]
    assert ledger.epsilon() == pytest.approx(by_rdp(2 * STEPS, ledger), rel=0.01)
    assert not (tmp_path / "sent-2").exists()

    assert process(folder, 0, 2, 3) == 0
    ledger = Ledger.open(folder)
    assert [(r.charge.round, r.charge.event.steps, r.steps_done) for r in ledger.reservations] == [
        (1, STEPS, STEPS),
        (2, STEPS, None),
        (2, STEPS, STEPS),
        (3, STEPS, STEPS),
    ]
    check_epsilon(ledger, CHARGES * STEPS)

    head, epsilon = ledger.head, ledger.epsilon()
    answer = server.ask(folder, server.pretrain(3))
    assert said(answer) == (tmp_path / "sent-3").read_text()
    assert (Ledger.open(folder).head, answer.message.metrics) == (head, {"epsilon_spent": rounded_up(epsilon)})


def check_epsilon(ledger, steps):
    """What the ledger says is dp-accounting's own composition of so many steps."""
    assert sum(event.steps for event in ledger.events()) == steps
    assert ledger.epsilon() == pytest.approx(by_rdp(steps, ledger), rel=0.01)
    best = RdpAccountant().compose(EVENT, steps).get_epsilon(DELTA)
    assert epsilon_rdp(ledger.events(), DELTA) == pytest.approx(best, rel=0.01)
    pld = PLDAccountant(value_discretization_interval=1e-4).compose(EVENT, steps).get_epsilon(DELTA)
    assert ledger.epsilon("pld") == pytest.approx(pld, rel=0.01)
    assert pld < best
