"""Whoever drops out when: the sum is that of the survivors to the last bit, or a clean refusal."""

import copy
import itertools

import numpy as np
import pytest

from protocol.secagg.errors import ThresholdError
from protocol.secagg.fixed_point import FixedPoint
from protocol.secagg.messages import Masked
from protocol.secagg.server import Aggregator
from tests.protocol.secagg.federation import (
    STAGES,
    Round,
    as_integers,
    integer_sum,
    session,
    updates,
    wire,
)

ROUNDING_64 = FixedPoint(clip=1.0, fraction_bits=50, word_bits=64, rounding="nearest")


def run(terms, update, gone):
    """A round in which each site of `gone` answers nothing from the stage named for it on."""
    round_ = Round(terms)
    for place, stage in enumerate(STAGES):
        here = [s for s in terms.sites if STAGES.index(gone.get(s, "unmask")) > place or gone.get(s) is None]
        arguments = (update, here) if stage == "mask" else (here,)
        getattr(round_, stage)(*arguments)
    return round_


def play(round_, update, stages, sites):
    for stage in stages:
        getattr(round_, stage)(*((update, sites) if stage == "mask" else (sites,)))


@pytest.mark.parametrize("sites", [3, 4, 5, 6])
def test_the_sum_is_exact_for_every_tolerated_set_of_dropouts_at_every_stage(sites):
    terms = session(sites, values=17)
    update = updates(terms)
    tolerated = [
        gone for size in range(sites - terms.threshold + 1) for gone in itertools.combinations(terms.sites, size)
    ]
    assert len(tolerated) > sites
    for place, stage in enumerate(STAGES):
        before = Round(terms)
        play(before, update, STAGES[:place], terms.sites)
        for gone in tolerated:
            left = [site for site in terms.sites if site not in gone]
            round_ = copy.deepcopy(before)
            play(round_, update, STAGES[place:], left)
            counted = list(terms.sites) if stage in ("agree", "unmask") else left
            assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, counted), (stage, gone)
            assert round_.server.merged().survivors == tuple(counted)


@pytest.mark.parametrize("gone", list(itertools.permutations(STAGES, 2)), ids="-".join)
def test_sites_that_drop_out_at_different_stages_leave_an_exact_sum(gone):
    terms = session(5, values=17)
    update = updates(terms)
    gone = {"birch": gone[0], "fir": gone[1]}
    counted = [s for s in terms.sites if gone.get(s) in (None, "agree", "unmask")]
    assert as_integers(run(terms, update, gone).server.open_sum()) == integer_sum(terms, update, counted)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("sites", [3, 4, 5, 6])
def test_below_the_threshold_the_round_is_refused_with_counts_and_a_remedy(sites, stage):
    terms = session(sites, values=5)
    gone = dict.fromkeys(terms.sites[: sites - terms.threshold + 1], stage)
    counts = rf"{terms.threshold - 1} of {sites} sites .*{stage}.* {terms.threshold} are needed .*{terms.sites[0]}.*;"
    with pytest.raises(ThresholdError, match=counts):
        run(terms, updates(terms), gone).server.open_sum()


def test_a_sum_below_the_threshold_stays_masked():
    terms = session(5, values=1000)
    update = updates(terms)
    round_ = Round(terms).until_agreed(update)
    round_.unmask(terms.sites[: terms.threshold - 1])
    for _ in range(2):
        with pytest.raises(ThresholdError, match="go on with the next round"):
            round_.server.open_sum()
    round_.unmask(terms.sites[terms.threshold - 1 : terms.threshold])
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, terms.sites)


@pytest.mark.parametrize("fixed", [None, ROUNDING_64], ids=["32 bits", "64 bits"])
def test_the_mean_is_within_the_stated_bound_of_the_exact_weighted_mean(fixed):
    terms = session(5, values=50_001, **({"fixed_point": fixed} if fixed else {}))
    update = updates(terms)
    merged = run(terms, update, {"ash": "mask"}).server.merged()
    weights = {s: terms.weights[s] for s in terms.sites if s != "ash"}
    exact = sum(w * update[s]["float32"].astype(np.longdouble) for s, w in weights.items()) / sum(weights.values())
    error = float(np.abs(merged.mean - exact).max())
    assert 0 < error <= merged.error_bound < 1e-6
    assert merged.weight == sum(weights.values())


def test_a_sum_at_the_edge_of_the_range_does_not_wrap():
    terms = session(6)
    update = {s: {"float32": np.full(terms.values, -2.0, np.float32)} for s in terms.sites}
    merged = run(terms, update, {}).server.merged()
    np.testing.assert_allclose(merged.mean, -1.0, rtol=0, atol=merged.error_bound)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_server_that_was_restarted_goes_on_where_it_was(stage):
    terms = session(4)
    update = updates(terms)
    round_, gone = Round(terms), "elm"
    for place, name in enumerate(STAGES):
        here = [s for s in terms.sites if s != gone or place < STAGES.index("mask")]
        getattr(round_, name)(*((update, here) if name == "mask" else (here,)))
        if STAGES[min(place + 1, 4)] == stage:
            kept = round_.server.to_dict()
            round_.server = Aggregator.from_dict(kept)
            resend(round_)
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, [s for s in terms.sites if s != gone])


def resend(round_):
    """The sites send the bytes that they have stored."""
    for name, vector in round_.vectors.items():
        message = Masked.from_dict(round_.states[name]["replies"]["mask"])
        round_.server.receive(wire(message), vector)
