"""Several processes, over gloo on CPUs, train as one does; an exchange is held to its closed form."""

import multiprocessing
from types import SimpleNamespace

import pytest
import torch

from mumc_model.checkpoint import load_weights
from mumc_model.errors import ConfigError
from mumc_model.ranks import ALONE, Ranks
from tests.mumc_model.rank_process import CASES, main, trained

SIZE = 3


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Of every case, what three processes left, by rank, and what one finds alone."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([main.__module__, "peft"])
    ranks = [context.Process(target=main, args=(folder, rank, SIZE), daemon=True) for rank in range(SIZE)]
    for process in ranks:
        process.start()
    alone = {case: trained(case) for case in CASES}
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * SIZE
    by_rank = {
        case: [load_weights(folder / f"{case}-{rank}.safetensors") for rank in range(SIZE)]
        for case in (*CASES, "exchanged")
    }
    return SimpleNamespace(by_rank=by_rank, alone=alone)


@pytest.mark.parametrize("case", CASES)
def test_ranks_see_the_losses_of_one_device_and_end_with_its_weights(case, left):
    alone = left.alone[case]
    for rank in left.by_rank[case]:
        assert rank.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(
                rank[name], tensor, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("case", CASES)
def test_ranks_end_with_the_same_bits(case, left):
    first, *others = left.by_rank[case]
    for other in others:
        assert all(torch.equal(other[name], tensor) for name, tensor in first.items())


def test_what_is_gathered_is_everyone_s_in_order_and_gradients_add_up_where_they_belong(left):
    for rank, told in enumerate(left.by_rank["exchanged"]):
        own = torch.arange(11.0)[[slice(0, 4), slice(4, 8), slice(8, 11)][rank]]
        assert torch.equal(told["gathered"], torch.arange(11.0)[:, None].expand(-1, 2))
        assert torch.equal(told["gradient"], (1 + 2 + 3) * own)
        assert torch.equal(told["wanted"], torch.tensor([10.0, 0.0]))
        assert torch.equal(told["extended"], torch.cat([own, torch.tensor([-1.0, 10.0, 0.0])]))


def test_gradients_of_every_type_are_summed_and_rank_0_is_copied(left):
    for told in left.by_rank["exchanged"]:
        assert torch.equal(told["gradients"], torch.full((5,), 6.0, dtype=torch.float64))
        assert float(told["sum"]) == 6
        assert torch.equal(told["first"], torch.full((2,), 5.0))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_all_of_a_batch_once_in_order_and_differ_by_one_at_most(size):
    for total in range(size, 14):
        shares = []
        for rank in range(size):
            ranks = Ranks()
            ranks.rank, ranks.size = rank, size
            shares.append(list(range(total))[ranks.share(total)])
        assert [row for share in shares for row in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_pairs_are_refused_with_the_remedy():
    ranks = Ranks()
    ranks.size = 4
    with pytest.raises(ConfigError, match="3 pairs cannot be shared by 4 processes; train this site with at most 3"):
        ranks.share(3)


def test_a_process_alone_sends_and_copies_nothing():
    rows, wanted = torch.arange(4.0), torch.tensor([3])
    assert ALONE.gather(rows, 4) is rows
    assert ALONE.sum({"a": rows})["a"] is rows
    assert ALONE.share(4) == slice(0, 4)
    assert ALONE.extend(rows, wanted, own=4, total=4) == (rows, wanted)
