"""Which updates of a round are refused once all of them can be compared.

An honest update is a direction that all share and one of the site's own: two of them have a cosine of about `alike`.
"""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.compose import compose
from configs.loader import load
from protocol.errors import FreeRiderError, NormError, OpposedError
from server.config import RunConfig, ScreenConfig
from server.judge import NOISE_VALUES, compare, judge
from server.merge import weighted_mean
from server.spool import Update, block_peaks
from tests.server.spooled import report, spooled

VALUES = 2 * NOISE_VALUES
BASE = np.random.default_rng(1).normal(size=VALUES).astype("float32")
STEP = np.random.default_rng(2).normal(size=VALUES).astype("float32")


def direction(*seed, values=VALUES):
    found = np.random.default_rng(seed).normal(size=values)
    return found / np.linalg.norm(found)


def honest(count, alike=0.2, norm=1.0, values=VALUES):
    shared = direction(3, values=values)
    own = [direction(4, place, values=values) for place in range(count)]
    return [(norm * (alike**0.5 * shared + (1 - alike) ** 0.5 * each)).astype("float32") for each in own]


def noise(seed=0, norm=1.0, values=VALUES):
    return (norm * direction(5, seed, values=values)).astype("float32")


def update(site, row, examples=10):
    packed = row if isinstance(row, dict) else {row.dtype.name: row}
    peaks = {dtype: block_peaks(flat) for dtype, flat in packed.items()}
    return Update(report=report(site, examples), late=0, arrays=packed, peaks=peaks)


def judged(rows, *, base=BASE, last_step=None, usual=(), private=False, examples=None, **config):
    """The verdict on updates of sites 0, 1 ..., with refusals by number."""
    examples = examples or [10] * len(rows)
    dtype, values = rows[0].dtype, rows[0].size
    base, step = (
        {dtype.name: known[:values].astype(dtype)} for known in (base, STEP if last_step is None else last_step)
    )
    verdict = judge(
        [update(str(place), row, count) for place, (row, count) in enumerate(zip(rows, examples, strict=True))],
        base=base,
        last_step=None if last_step is None else step,
        usual=usual,
        config=ScreenConfig(**config),
        private=private,
    )
    return verdict.norms, {int(site): error for site, error in verdict.refused.items()}


def kinds(rows, **settings):
    return {place: type(error) for place, error in judged(rows, **settings)[1].items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("alike", [0.05, 0.2, 0.9])
@pytest.mark.parametrize("private", [False, True])
def test_honest_updates_pass(count, alike, private):
    norms, refused = judged(honest(count, alike), last_step=STEP, usual=[1.0, 0.7], private=private)
    assert refused == {}
    assert norms == pytest.approx(dict.fromkeys(map(str, range(count)), 1.0), rel=0.05)


def test_a_round_without_updates_has_an_empty_verdict():
    verdict = judge([], base={"float32": BASE}, last_step=None, usual=[1.0], config=ScreenConfig(), private=False)
    assert (verdict.norms, verdict.refused) == ({}, {})


def test_norms_and_cosines_are_those_of_numpy(tmp_path):
    rows = np.stack([*honest(3), noise(norm=7)])
    look = compare(spooled(tmp_path, list(rows)), {"float32": BASE}, {"float32": STEP})
    stacked = np.stack([*rows, BASE, STEP]).astype("float64")
    lengths = np.linalg.norm(stacked, axis=1)
    cosines = stacked @ stacked.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(look.norm_n, lengths[:4], rtol=1e-12)
    np.testing.assert_allclose(look.cosine_nn, cosines[:4, :4], atol=1e-12)
    np.testing.assert_allclose([look.base_n, look.step_n], cosines[4:, :4], atol=1e-12)
    rest = [np.linalg.lstsq(stacked[4:].T, row, rcond=None)[1][0] ** 0.5 for row in stacked[:4]]
    np.testing.assert_allclose(look.fresh_n, rest / lengths[:4], rtol=1e-9)


def in_int8(row, block=256):
    """As int8 with a scale for each block brings it over."""
    parts = np.array_split(row, np.arange(block, row.size, block))
    scales = [np.abs(part).max() / 127 for part in parts]
    return np.concatenate([np.round(part / scale) * scale for part, scale in zip(parts, scales, strict=True)])


ECHOES = {
    "the weights in int8": in_int8(BASE),
    "the last step in int8": in_int8(STEP),
    "nothing": np.zeros_like(BASE),
    "the weights": BASE,
    "the weights, taken away": -BASE,
    "a little of the weights": (1e-6 * BASE).astype("float32"),
    "the last step": STEP,
    "the last step, longer": 3 * STEP,
    "the weights before": BASE - STEP,
    "the last step with a trace of noise": STEP + noise(norm=0.1),
}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("others", [0, 1, 4])
@pytest.mark.parametrize("echo", ECHOES)
def test_what_the_server_sent_is_no_update(echo, others, private):
    rows = [ECHOES[echo], *honest(others, norm=100)]
    assert kinds(rows, last_step=STEP, private=private) == {0: FreeRiderError}


def test_an_update_that_is_mostly_new_is_no_echo():
    honest_along_the_last_step = (0.99 * STEP / np.linalg.norm(STEP) + 0.14 * direction(9)).astype("float32")
    assert kinds([honest_along_the_last_step, *honest(2)], last_step=STEP) == {}


@pytest.mark.parametrize("longer", [0.25, 1, 3])
@pytest.mark.parametrize("private", [False, True])
def test_of_two_equal_updates_the_one_that_claims_less_is_kept(longer, private):
    first, second = honest(2)
    rows = [(longer * first).astype("float32"), first, second]
    for examples, refused in (([10, 20, 5], 1), ([20, 10, 5], 0)):
        assert kinds(rows, examples=examples, private=private) == {refused: FreeRiderError}


def test_an_update_and_its_copy_in_int8_are_one():
    first, second = honest(2)
    assert kinds([first, in_int8(first), second], examples=[10, 20, 10]) == {1: FreeRiderError}


def test_three_equal_updates_count_once_and_their_order_does_not_matter():
    first, second = honest(2)
    for rows in permutations([("a", first), ("b", first), ("c", first), ("d", second)]):
        verdict = judge(
            [update(site, row) for site, row in rows],
            base={"float32": BASE},
            last_step=None,
            usual=[],
            config=ScreenConfig(),
            private=False,
        )
        assert sorted(verdict.refused) == ["b", "c"]


def test_a_copy_that_is_refused_for_its_length_costs_the_original_nothing():
    first, *others = honest(3)
    assert kinds([first, 100 * first, *others], examples=[10, 1, 10, 10]) == {1: NormError}


@pytest.mark.parametrize("norm", [0.01, 1.0, 4.9])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_noise_among_trained_updates_is_a_free_rider(count, norm):
    _, refused = judged([*honest(count), noise(norm=norm)])
    assert list(refused) == [count]
    assert isinstance(refused[count], FreeRiderError)
    assert "cannot be told from noise" in str(refused[count])


def test_two_of_three_are_found_to_be_noise_once_there_is_a_last_step():
    (trained,) = honest(1)
    step = (3 * direction(3)).astype("float32")
    rows = [noise(1), trained, noise(2)]
    assert kinds(rows) == {}
    assert kinds(rows, last_step=step) == {0: FreeRiderError, 2: FreeRiderError}


def test_equal_noise_of_two_sites_proves_nothing_to_either():
    assert kinds([*honest(3), noise(1), noise(1)]) == {3: FreeRiderError, 4: FreeRiderError}


def test_updates_that_all_look_like_noise_are_left_alone():
    assert kinds([noise(seed) for seed in range(6)], last_step=STEP) == {}


def test_noise_passes_under_differential_privacy_and_in_a_small_model():
    assert kinds([*honest(4), noise()], private=True) == {}
    few = NOISE_VALUES - 1
    assert kinds([*honest(4, values=few), noise(values=few)]) == {}
    assert kinds([*honest(4, values=few + 1), noise(values=few + 1)]) == {4: FreeRiderError}


def test_noise_lies_within_the_deviation_that_the_limit_is_made_of(tmp_path):
    rows = [np.random.default_rng(seed).normal(size=2000).astype("float32") for seed in range(60)]
    look = compare(spooled(tmp_path, rows), {"float32": np.ones(2000, "float32")}, None)
    cosines = look.cosine_nn[np.triu_indices(60, 1)] * 2000**0.5
    assert (np.std(cosines), abs(np.mean(cosines))) < (1.05, 0.1)
    assert np.std(cosines) > 0.95


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_flipped_update_points_against_the_others(count, private):
    *others, last = honest(count + 1)
    _, refused = judged([*others, -last], private=private)
    assert list(refused) == [count]
    assert isinstance(refused[count], OpposedError)
    assert f"points against {count} of {count} others" in str(refused[count])


def test_of_two_sites_that_disagree_neither_is_refused():
    first, second = honest(2)
    assert kinds([first, -second]) == {}


@given(
    liars=st.integers(1, 3),
    extra=st.integers(1, 3),
    private=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_no_minority_that_knows_every_update_can_cost_an_honest_site_its_place(liars, extra, private, seed):
    rng = np.random.default_rng(seed)
    fair = honest(liars + extra + 1, alike=0.1)
    # Any combination of the others' updates, in which none is a plain copy, of any length.
    mixes = rng.normal(size=(liars, len(fair))) @ np.stack(fair) * 10 ** rng.uniform(-3, 3, size=(liars, 1))
    rows = [*fair, *(mix.astype("float32") for mix in mixes)]
    _, refused = judged(rows, usual=list(10 ** rng.uniform(-3, 3, size=5)), private=private)
    assert all(place >= len(fair) for place in refused)


@pytest.mark.parametrize("usual", [(), (1.0, 1.1), (0.1, 0.1, 10.0, 10.0)])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_an_update_a_hundred_times_too_long_is_refused_in_any_round(others, usual):
    *rows, last = honest(others + 1)
    _, refused = judged([*rows, 100 * last], usual=usual)
    assert list(refused) == [others]
    assert isinstance(refused[others], NormError)
    assert f"norm is {100 * np.linalg.norm(last):.4g}" in str(refused[others])


def test_a_site_alone_is_measured_by_its_own_past():
    (row,) = honest(1)
    assert kinds([row]) == {}
    assert kinds([row], usual=[0.21]) == {}
    assert kinds([row], usual=[0.19]) == {0: NormError}


def test_one_huge_value_makes_an_update_too_long():
    rows = honest(4)
    rows[2][17] = 50
    assert kinds(rows) == {2: NormError}


@pytest.mark.parametrize("factor", [1e-3, 0.1, 10.0, 1e3])
def test_what_all_sites_do_alike_is_not_too_long(factor):
    assert kinds([(factor * row).astype("float32") for row in honest(3)], usual=[1.0] * 15) == {}


def test_norms_of_one_round_may_differ_by_less_than_the_factor():
    first, second, third = honest(3)
    assert kinds([first, 4.9 * second, (0.01 * third).astype("float32")]) == {}
    assert kinds([first, 5.2 * second, (0.01 * third).astype("float32")]) == {1: NormError}


def test_the_factor_is_above_what_a_fresh_optimiser_does_beside_a_warm_one():
    """On gradients of pure noise Adam's first step is sqrt((1 + b) / (1 - b)) times as long as its later ones."""
    decay, decay_of_squares = load(RunConfig, compose("run", [])).recipe.pretrain.optimizer.betas
    rng, first, second, lengths = np.random.default_rng(0), 0.0, 0.0, []
    for step in range(1, 401):
        gradient = rng.normal(size=5000)
        first = decay * first + (1 - decay) * gradient
        second = decay_of_squares * second + (1 - decay_of_squares) * gradient**2
        mean, square = first / (1 - decay**step), second / (1 - decay_of_squares**step)
        lengths.append(np.linalg.norm(mean / np.sqrt(square)))
    longer = ((1 + decay) / (1 - decay)) ** 0.5
    assert lengths[0] / np.mean(lengths[300:]) == pytest.approx(longer, rel=0.05)
    assert longer < ScreenConfig().norm_factor


def test_a_free_rider_does_not_say_what_is_usual():
    first, second = honest(2)
    rows = [first, *([(1e-6 * BASE).astype("float32")] * 3), second]
    assert kinds(rows) == dict.fromkeys((1, 2, 3), FreeRiderError)
    assert kinds(rows, free_riders=False) == dict.fromkeys((0, 4), NormError)


def test_a_liar_of_two_sites_cannot_stretch_what_is_usual_round_by_round():
    """It tries 4.9 times what it got through before, and where that is refused sends as much as before."""
    first, second = honest(2)
    merged, longest = [], 1.0
    for _ in range(12):
        usual = merged[-10:]
        if not kinds([first, (4.9 * longest * second).astype("float32")], usual=usual):
            longest *= 4.9
        norms, refused = judged([first, (longest * second).astype("float32")], usual=usual)
        assert refused == {}
        merged += norms.values()
    assert longest == 4.9


def test_screens_that_are_off_refuse_nothing():
    first, second = honest(2)
    rows = [first, second, first, -3 * second, np.zeros_like(first), BASE, noise()]
    assert kinds(rows, norm_factor=0, free_riders=False) == {}
    assert set(kinds([*rows, 1e6 * first], norm_factor=5.0, free_riders=False).values()) == {NormError}


def test_a_norm_beyond_float64_is_the_largest_float_and_hides_nobody():
    rows = [row.astype("float64") for row in honest(3)]
    norms, refused = judged([*rows, rows[0] * 1e200, np.zeros(VALUES)])
    assert {place: type(error) for place, error in refused.items()} == {3: NormError, 4: FreeRiderError}
    assert norms["3"] == np.finfo("float64").max


def test_reasons_hold_numbers_and_name_no_other_site():
    first, second, third = honest(3)
    names = ["north", "south", "east", "west", "isle", "hill", "lake"]
    rows = [first, second, third, 100 * second, first, noise(), -third]
    verdict = judge(
        [update(name, row) for name, row in zip(names, rows, strict=True)],
        base={"float32": BASE},
        last_step=None,
        usual=[],
        config=ScreenConfig(),
        private=False,
    )
    assert {name: error.code for name, error in verdict.refused.items()} == {
        "west": "norm_too_large",
        "north": "free_rider",
        "hill": "free_rider",
        "lake": "opposed",
    }
    for error in verdict.refused.values():
        assert not [name for name in names if name in str(error)]
        assert any(letter.isdigit() for letter in str(error))


@given(scale=st.floats(-1e6, 1e6, width=32).filter(lambda scale: abs(scale) > 1e-3), count=st.integers(2, 6))
@settings(deadline=None, max_examples=80)
def test_a_scaled_or_flipped_update_moves_the_mean_by_a_bounded_distance(scale, count):
    """Of n + 1 sites of equal weight one moves it by at most (factor * longest norm + norm of the mean) / (n + 1)."""
    *fair, last = [update(str(place), row) for place, row in enumerate(honest(count + 1))]
    foul = update("foul", (scale * last.arrays["float32"]).astype("float32"))
    verdict = judge(
        [*fair, foul], base={"float32": BASE}, last_step=None, usual=[], config=ScreenConfig(), private=False
    )
    assert set(verdict.refused) <= {"foul"}
    kept = [one for one in (*fair, foul) if one.site not in verdict.refused]
    merged, wanted = (weighted_mean(group, [1] * len(group))["float32"] for group in (kept, fair))
    longest = max(verdict.norms[one.site] for one in fair)
    bound = (5 * longest + np.linalg.norm(wanted)) / (count + 1)
    assert np.linalg.norm(merged - wanted) <= bound * (1 + 1e-6)
