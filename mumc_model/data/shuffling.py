"""Orders that a seed and a step number fix, so that training can go on from any step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def seeded(seed: int, *parts: int) -> torch.Generator:
    """A generator of its own for each seed and purpose."""
    state = np.random.SeedSequence([seed, *parts]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def shuffled(count: int, size: int, seed: int, start_step: int) -> Iterator[tuple[int, Tensor]]:
    """Step numbers and the indices of their batches, without end; an epoch's remainder is left out of its order."""
    steps_per_epoch = count // size
    step = start_step
    while True:
        epoch, first = divmod(step, steps_per_epoch)
        order = torch.randperm(count, generator=seeded(seed, 0, epoch))
        for position in range(first, steps_per_epoch):
            yield step, order[position * size : (position + 1) * size]
            step += 1
