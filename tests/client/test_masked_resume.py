"""A server that ends in a masked round goes on with the same session, and opens the same sum."""

import dataclasses

import numpy as np
import pytest

from server.round_folder import RoundFolder
from server.secagg import MaskedRound
from tests.client.masked import NODES, STAGES, KilledError, Trio

SITES = tuple(NODES)


@pytest.fixture
def trio(trio_folder, server):
    return Trio(trio_folder, server)


class MortalFolder(RoundFolder):
    """Ends the server's process in place of its n-th step on the disk."""

    def __init__(self, folder, steps):
        super().__init__(folder)
        self.steps = steps

    def keep_masks(self, values):
        self._step()
        super().keep_masks(values)

    def _step(self):
        if self.steps == 0:
            raise KilledError
        self.steps -= 1


def opened(trio, folder, round, online=SITES):
    order = trio.order(round)
    folder.begin(order)
    return MaskedRound.open(
        folder,
        lambda: trio.terms.session(order, trio.server.schema, list(online)),
        order=order,
        nodes={name: NODES[name] for name in online},
        ask=trio.ask,
        stage_timeout_s=60.0,
        mask_timeout_s=60.0,
    )


def checked(trio, round, number, sites=SITES):
    merged = round.play()
    assert merged.survivors == tuple(sites)
    error = np.abs(merged.mean - trio.mean(*sites, round=number)).max()
    assert error <= merged.error_bound
    assert sorted(round.tally.reports) == sorted(sites)
    return merged


def test_a_server_that_ends_after_any_message_opens_the_same_sum(trio, tmp_path):
    steps = 0
    for number in range(1, 99):
        place = tmp_path / str(number)
        try:
            checked(trio, opened(trio, MortalFolder(place, steps), number), number)
            break
        except KilledError:
            steps += 1
        session = RoundFolder(place).masks()
        again = opened(trio, RoundFolder(place), number)
        assert session is None or again.session.to_dict() == session["aggregator"]["session"]
        checked(trio, again, number)
    # One step a stage, and one for each of three answers to each of five stages.
    assert steps == len(STAGES) * (1 + len(SITES))
    assert len(trio.trained) == number * len(SITES), "a site trains once a round"


@pytest.mark.parametrize("stage", STAGES[3:])
def test_masked_words_on_the_disk_are_not_asked_for_again(trio, tmp_path, stage):
    trio.lost = {(site, stage) for site in SITES[:2]}
    folder = RoundFolder(tmp_path / "round")
    round = opened(trio, folder, 1)
    with pytest.raises(Exception, match="answered the stage"):
        round.play()
    trio.lost, trio.sent = set(), {}
    checked(trio, opened(trio, RoundFolder(tmp_path / "round"), 1), 1)
    assert {asked for _, asked in trio.sent} == set(STAGES[STAGES.index(stage) :])


def test_another_attempt_begins_with_nothing_of_the_one_before(trio, tmp_path):
    trio.lost = {(site, "agree") for site in SITES[:2]}
    folder = RoundFolder(tmp_path / "round")
    with pytest.raises(Exception, match="answered the stage"):
        opened(trio, folder, 1).play()
    assert folder.spool.sites() == sorted(SITES)
    folder.begin(dataclasses.replace(trio.order(1), attempt=2))
    assert folder.masks() is None
    assert folder.spool.sites() == []


def test_a_site_that_was_lost_before_the_server_ended_stays_lost_and_named(trio, tmp_path):
    trio.lost = {("birch", "share")}
    folder = MortalFolder(tmp_path / "round", 12)
    with pytest.raises(KilledError):
        opened(trio, folder, 1).play()
    trio.lost = set()
    again = opened(trio, RoundFolder(tmp_path / "round"), 1)
    checked(trio, again, 1, ("ash", "cedar"))
    assert again.tally.refused == {"birch": "no_answer"}
    assert again.facts()["absent"] == {"birch": {"stage": "share", "code": "no_answer"}}
