"""Any mix of honest and refused updates gives the mean of the honest ones, bit for bit: judged, and in whole runs."""

from dataclasses import replace
from itertools import count

import numpy as np
from flwr.app import Error, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.codec import unpack
from protocol.errors import UpdateError
from protocol.messages import Refusal
from protocol.records import to_record
from protocol.schema import WeightSchema
from server import federation
from server.config import ScreenConfig
from server.journal import read_journal
from server.judge import judge
from server.merge import weighted_mean
from server.screen import check_examples, check_finite
from tests.server import fake_grid
from tests.server.conftest import RECIPE
from tests.server.spooled import report
from tests.server.test_judge import BASE, STEP, VALUES, honest, noise, update

SCHEMA = WeightSchema(names=("a",), shapes=((VALUES,),), dtypes=("float32",))


def spoilt(value):
    return lambda row: np.where(np.arange(row.size) == 7, value, row).astype("float32")


FAULTS = {
    "nan": (spoilt(np.nan), 10),
    "infinite": (spoilt(np.inf), 10),
    "short": (lambda row: row[:-1], 10),
    "one row of two": (lambda row: row[None], 10),
    "float64": (lambda row: row.astype("float64"), 10),
    "1e12 examples": (lambda row: row, 10**12),
    "no examples": (lambda row: row, 0),
    "scaled": (lambda row: 100 * row, 10),
    "flipped": (lambda row: -row, 10),
    "nothing": (lambda row: 0 * row, 10),
    "the weights": (lambda row: BASE.copy(), 10),
    "the last step": (lambda row: STEP.copy(), 10),
    "noise": (lambda row: noise(int(1e6 * abs(row[0]))), 10),
    "a copy": (lambda row: honest(1)[0], 100),
}
"""What a site sends in place of its honest update, and how many examples it claims."""


def arrived(site, row, examples):
    """The update as it lies in the spool; None where it is refused on arrival."""
    try:
        unpack({row.dtype.name: row}, SCHEMA)
        check_examples(report(site, examples), 1000)
        check_finite({"float32": row}, {"float32": BASE})
    except UpdateError:
        return None
    return update(site, row, examples)


@given(
    faults=st.lists(st.sampled_from(sorted(FAULTS)), max_size=4),
    more=st.integers(1, 3),
    examples=st.lists(st.integers(1, 99), min_size=8, max_size=8),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=80)
def test_any_mix_of_honest_and_refused_updates_gives_the_mean_of_the_honest_ones(faults, more, examples, order):
    rows = honest(2 * len(faults) + more)
    fair = [update(f"fair-{place}", row, examples[place]) for place, row in enumerate(rows[len(faults) :])]
    # A copy is of the first of these.
    fair[0] = update("fair-0", honest(1)[0], examples[0])
    foul = [
        arrived(f"foul-{place}", FAULTS[fault][0](rows[place + 1]), FAULTS[fault][1])
        for place, fault in enumerate(faults)
    ]
    mixed = [*fair, *(found for found in foul if found)]
    order.shuffle(mixed)
    verdict = judge(
        mixed, base={"float32": BASE}, last_step={"float32": STEP}, usual=[], config=ScreenConfig(), private=False
    )
    kept = [one for one in mixed if one.site not in verdict.refused]
    means = [weighted_mean(group, [one.report.examples for one in group]) for group in (kept, fair)]
    np.testing.assert_array_equal(*(mean["float32"].view("int32") for mean in means))


LARGER = replace(
    RECIPE,
    model=replace(
        RECIPE.model, vision=replace(RECIPE.model.vision, width=16), text=replace(RECIPE.model.text, width=16)
    ),
)
"""A model of 13,000 weights: in fewer noise is not looked for."""


def learnt(order, values, place):
    """The honest update of the site at this place: half of its length is common to all."""
    shared, own = (np.random.default_rng([order.seed % 2**32, key]).normal(size=values) for key in (0, 1 + place))
    return ((shared + own) / 100).astype("float32")


def fair(place, examples):
    def answer(order, base):
        told = fake_grid.report(order, site=f"fair-{place}", examples=examples)
        return to_record(told, {"float32": learnt(order, base["float32"].size, place)})

    return answer


def sends(change=lambda row, base, seen: row, arrays=lambda row: {"float32": row}, **told):
    """A site that reports as it should, or not, beside changed weights; `seen` are the weights it was sent before."""

    def make(place):
        seen = []

        def answer(order, base):
            row = change(learnt(order, base["float32"].size, place), base["float32"], seen)
            seen.append(base["float32"].copy())
            return to_record(fake_grid.report(order, site=f"foul-{place}", **told), arrays(row))

        return answer

    return make


def says(message):
    return lambda place: lambda order, base: message()


WIRE_FAULTS = {
    "a NaN": (sends(lambda row, base, seen: spoilt(np.nan)(row)), "not_finite"),
    "overflowing weights": (sends(lambda row, base, seen: spoilt(3.4e38)(row)), "norm_too_large"),
    "one number too few": (sends(lambda row, base, seen: row[:-1]), "wrong_shape"),
    "doubles": (sends(arrays=lambda row: {"float32": row.astype("float64")}), "wrong_dtype"),
    "no weights": (sends(arrays=lambda row: {}), "missing_weights"),
    "an extra key": (sends(arrays=lambda row: {"float32": row, "float64": np.zeros(1)}), "unexpected_weights"),
    "1e12 examples": (sends(examples=10**12), "bad_examples"),
    "no examples": (sends(examples=0), "bad_examples"),
    "a report of another round": (sends(round=9), "stale"),
    "another base": (sends(base_digest="0" * 64), "stale"),
    "a refusal": (says(lambda: to_record(Refusal(code="data", text="no captions"))), "data"),
    "an error of Flower's": (says(lambda: Error(3, "Traceback")), "flower_3"),
    "an empty record": (says(RecordDict), "bad_message"),
    "scaled": (sends(lambda row, base, seen: 100 * row), "norm_too_large"),
    "flipped": (sends(lambda row, base, seen: -row), "opposed"),
    "nothing": (sends(lambda row, base, seen: 0 * row), "free_rider"),
    "the weights": (sends(lambda row, base, seen: base), "free_rider"),
    "the last step": (sends(lambda row, base, seen: base - (seen or [base])[-1]), "free_rider"),
    "noise": (sends(lambda row, base, seen: noise(int(1e6 * abs(row[0])), values=row.size)), "free_rider"),
}
"""What a site answers in place of its honest update, and the code it is refused with."""
FOLDERS = count()


@given(
    faults=st.lists(st.sampled_from(sorted(WIRE_FAULTS)), min_size=1, max_size=4),
    more=st.integers(1, 2),
    examples=st.lists(st.integers(1, 99), min_size=6, max_size=6),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_with_any_mix_of_faults_ends_with_the_weights_of_one_without_them(
    configured, faults, more, examples, order
):
    honest_nodes = {100 + place: fair(place, examples[place]) for place in range(len(faults) + more)}
    faulty_nodes = {200 + place: WIRE_FAULTS[fault][0](50 + place) for place, fault in enumerate(faults)}
    nodes = list({**honest_nodes, **faulty_nodes}.items())
    order.shuffle(nodes)
    results = []
    for chosen in (honest_nodes, dict(nodes)):
        folder, run_id = f"run-{next(FOLDERS)}", "r"
        config = configured(folder, rounds=2, sites=len(chosen), min_sites=1, run_id=run_id, recipe=LARGER)
        results.append(federation.run(fake_grid.FakeGrid(chosen), config))
    plain, mixed = results
    assert mixed.weights.read_bytes() == plain.weights.read_bytes()
    for record in read_journal(mixed.journal):
        assert sorted(record.refused.values()) == sorted(WIRE_FAULTS[fault][1] for fault in faults)
        assert len(record.merged) == len(honest_nodes)
