"""A group of processes that train one model together, each on its share of every batch, and what they tell one another.

All ranks draw the same random choices for the whole batch, and a rank's loss is its share of the batch's mean. So the
sum of their gradients is the gradient of one device that holds the whole batch, and all ranks take the same step.

Dimensions: B rows of the whole batch, b of this rank's share, T rows at hand, X wanted rows.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mumc_model.errors import ConfigError, RanksError

BUCKET_BYTES = 32 << 20
"""Gradients are summed so many bytes at a time: large enough for the wire, small enough to need little room."""
TIMEOUT_S = 600.0
"""A rank that the others wait for so long is taken for dead."""


class Ranks:
    """A process alone: the whole batch is its share, and nothing is sent. `JoinedRanks` is more than one."""

    rank = 0
    size = 1

    def share(self, total: int) -> slice:
        """This rank's rows of a batch of `total`; shares lie in the order of ranks and differ by 1 at most.

        Raises:
            ConfigError: there are fewer rows than ranks.
        """
        if total < self.size:
            raise ConfigError(
                f"{total} pairs cannot be shared by {self.size} processes; train this site with at most {total} "
                "processes, or raise pretrain.batch_size or lower pretrain.accumulation in the run"
            )
        return slice(self._first(self.rank, total), self._first(self.rank + 1, total))

    def gather(self, rows_b: Tensor, total: int) -> Tensor:
        """The rows B of all ranks in order, from each one's own; a gradient flows back to whom it concerns."""
        return rows_b

    def extend(self, rows_T: Tensor, wanted_X: Tensor, own: int, total: int) -> tuple[Tensor, Tensor]:
        """Rows among which all wanted ones are, and where; the first `own` of `rows_T` are this rank's of the batch.

        `wanted_X` counts in the whole batch. What other ranks hold comes behind `rows_T`, with its gradient.
        """
        return rows_T, wanted_X

    def sum(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum of each number over all ranks, without a gradient."""
        return numbers

    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Put into every weight's gradient the sum of all ranks' gradients."""

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of rank 0."""

    def abort(self) -> None:
        """Let go of every exchange that waits for a rank which is no more; the group is of no use any longer."""

    def _first(self, rank: int, total: int) -> int:
        each, more = divmod(total, self.size)
        return rank * each + min(rank, more)


ALONE = Ranks()


class JoinedRanks(Ranks):
    """Ranks of torch's process group, which `join` has set up."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, rows_b: Tensor, total: int) -> Tensor:
        """The rows B of all ranks in order, from each one's own; a gradient flows back to whom it concerns."""
        gathered_B: Tensor = _Gather.apply(rows_b, self, total)
        return gathered_B

    def extend(self, rows_T: Tensor, wanted_X: Tensor, own: int, total: int) -> tuple[Tensor, Tensor]:
        """Rows among which all wanted ones are, and where; the first `own` of `rows_T` are this rank's of the batch."""
        wanted = self.gather(rows_T[:own], total)[wanted_X]
        return torch.cat([rows_T, wanted]), torch.arange(len(rows_T), len(rows_T) + len(wanted_X)).to(wanted_X)

    def sum(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum of each number over all ranks, without a gradient."""
        summed = torch.stack([number.detach() for number in numbers.values()])
        dist.all_reduce(summed)
        return dict(zip(numbers, summed.unbind(), strict=True))

    @torch.no_grad()
    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Put into every weight's gradient the sum of all ranks' gradients; the same weights must have one at each."""
        last: tuple[list[Tensor], Tensor, Any] | None = None
        for bucket in _buckets(weight.grad for weight in weights if weight.grad is not None):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            sending = bucket, flat, dist.all_reduce(flat, async_op=True)
            _arrived(last)
            last = sending
        _arrived(last)

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of rank 0."""
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.broadcast(flat, 0)
            _fill(bucket, flat)

    def abort(self) -> None:
        """Let go of every exchange that waits for a rank which is no more; the group is of no use any longer."""
        if dist.group.WORLD is not None:
            dist.group.WORLD.abort()

    def padded(self, rows_b: Tensor, total: int) -> Tensor:
        """The rows with zeros behind them, so that every rank has as many as the first."""
        missing = self._first(1, total) - len(rows_b)
        return torch.cat([rows_b, rows_b.new_zeros(missing, *rows_b.shape[1:])]) if missing else rows_b.contiguous()

    def shares(self, total: int) -> list[int]:
        """How many rows each rank has of a batch."""
        return [self._first(rank + 1, total) - self._first(rank, total) for rank in range(self.size)]


class _Gather(torch.autograd.Function):
    """All ranks' rows forward; backward the sum of what all ranks' losses say of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows_b: Tensor, ranks: JoinedRanks, total: int) -> Tensor:
        ctx.ranks, ctx.total, ctx.own = ranks, total, len(rows_b)
        shares = ranks.shares(total)
        if len(rows_b) != shares[ranks.rank]:
            raise ValueError(f"rank {ranks.rank} has {len(rows_b)} rows to gather, not its {shares[ranks.rank]}")
        mine = ranks.padded(rows_b, total)
        all_of_them = mine.new_empty(ranks.size * len(mine), *mine.shape[1:])
        dist.all_gather_into_tensor(all_of_them, mine)
        if total == len(all_of_them):
            return all_of_them
        parts = zip(all_of_them.split(len(mine)), shares, strict=True)
        return torch.cat([part[:share] for part, share in parts])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_B,), ranks = gradients, ctx.ranks
        if ctx.total % ranks.size:
            shares = gradient_B.split(ranks.shares(ctx.total))
            gradient_B = torch.cat([ranks.padded(share, ctx.total) for share in shares])
        mine = gradient_B.new_empty(len(gradient_B) // ranks.size, *gradient_B.shape[1:])
        dist.reduce_scatter_tensor(mine, gradient_B.contiguous())
        return mine[: ctx.own], None, None


@contextmanager
def join(
    device: torch.device, *, rank: int = -1, size: int = -1, meeting: str = "env://", timeout_s: float = TIMEOUT_S
) -> Iterator[Ranks]:
    """Be one of a group until the end of the block; under `torchrun` its environment says which.

    Args:
        device: Where this rank computes; a GPU each over NCCL, CPUs over gloo.
        rank: From 0; left out where the environment says it.
        size: Ranks of the group.
        meeting: Where they find one another, as a URL of `torch.distributed`: `file:///path/to/new/file`.
        timeout_s: A rank that the others wait for so long is taken for dead.

    Raises:
        RanksError: this process is in a group already.
    """
    if dist.is_initialized():
        raise RanksError("this process trains in a group of processes already; train one site at a time in it")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=meeting, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s)
    )
    try:
        yield JoinedRanks()
    finally:
        dist.destroy_process_group()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in lists of one type and about `BUCKET_BYTES`, in their order."""
    bucket: list[Tensor] = []
    bytes_ = 0
    for tensor in tensors:
        if bucket and (bytes_ + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, bytes_ = [], 0
        bucket.append(tensor)
        bytes_ += tensor.nbytes
    if bucket:
        yield bucket


def _arrived(sent: tuple[list[Tensor], Tensor, Any] | None) -> None:
    if sent is not None:
        bucket, flat, work = sent
        work.wait()
        _fill(bucket, flat)


def _fill(bucket: list[Tensor], flat: Tensor) -> None:
    parts = flat.split([tensor.numel() for tensor in bucket])
    torch._foreach_copy_(bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)])
