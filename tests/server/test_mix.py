"""Any mix of honest and refused updates gives the mean of the honest ones, bit for bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import unpack
from protocol.errors import UpdateError
from protocol.schema import WeightSchema
from server.config import ScreenConfig
from server.judge import judge
from server.merge import weighted_mean
from server.screen import check_examples, check_finite
from tests.server.spooled import report
from tests.server.test_judge import BASE, STEP, VALUES, honest, noise, update

SCHEMA = WeightSchema(names=("a",), shapes=((VALUES,),), dtypes=("float32",))
"""Faults of one site's round: what it sends in place of its honest update, and how many examples it claims."""
FAULTS = {
    "nan": (lambda row: np.where(np.arange(VALUES) == 7, np.nan, row).astype("float32"), 10),
    "infinite": (lambda row: np.where(np.arange(VALUES) == 7, np.inf, row).astype("float32"), 10),
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


def arrives(site, row, examples):
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
        arrives(f"foul-{place}", FAULTS[fault][0](rows[place + 1]), FAULTS[fault][1])
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
