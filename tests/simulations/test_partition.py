import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.loader import ConfigurationError
from simulations.partition import PartitionConfig, partition

SCHEMES = ["alike", "dirichlet", "label", "size"]


@given(
    scheme=st.sampled_from(SCHEMES),
    labels=st.lists(st.sampled_from(["ct", "mr", "xray"]), min_size=40, max_size=120),
    hospitals=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_patient_is_at_exactly_one_hospital(scheme, labels, hospitals, seed):
    config = PartitionConfig(scheme=scheme, concentration=1.0)
    shares = partition(labels, hospitals, config, np.random.default_rng(seed))
    assert len(shares) == hospitals
    assert sorted(i for share in shares for i in share) == list(range(len(labels)))


def test_alike_shares_differ_by_at_most_one_patient():
    sizes = [len(s) for s in partition(["a"] * 10, 4, PartitionConfig(scheme="alike"), np.random.default_rng(0))]
    assert sorted(sizes) == [2, 2, 3, 3]


def test_by_label_gives_a_hospital_one_label_where_there_are_as_many_as_hospitals():
    labels = ["ct", "mr", "xray"] * 20
    shares = partition(labels, 3, PartitionConfig(scheme="label"), np.random.default_rng(0))
    assert [{labels[i] for i in share} for share in shares] == [{"ct"}, {"mr"}, {"xray"}]


def test_by_size_halves_from_hospital_to_hospital():
    shares = partition(["a"] * 70, 3, PartitionConfig(scheme="size"), np.random.default_rng(0))
    assert [len(share) for share in shares] == [40, 20, 10]


def test_a_small_concentration_makes_hospitals_less_alike_than_a_large_one():
    labels = ["ct", "mr", "xray"] * 100

    def spread(concentration: float) -> float:
        config = PartitionConfig(scheme="dirichlet", concentration=concentration)
        shares = partition(labels, 3, config, np.random.default_rng(1))
        mixes = [np.mean([labels[i] == "ct" for i in share]) for share in shares]
        return float(np.std(mixes))

    assert spread(0.3) > 3 * spread(100.0)


def test_the_same_seed_gives_the_same_split():
    labels = ["ct", "mr"] * 30
    splits = [partition(labels, 3, PartitionConfig(scheme="dirichlet"), np.random.default_rng(5)) for _ in range(2)]
    assert splits[0] == splits[1]


def test_fewer_patients_than_hospitals_are_refused_with_both_numbers():
    with pytest.raises(ConfigurationError, match="2 patients cannot be split over 3 hospitals"):
        partition(["a", "b"], 3, PartitionConfig(scheme="alike"), np.random.default_rng(0))
