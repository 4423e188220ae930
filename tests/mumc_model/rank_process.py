"""Training that one process or several do, in double precision, and what a group of ranks says of a few small tensors.

`main` is one rank: it leaves what it saw of every case in FOLDER/CASE-RANK.safetensors.
"""

import os
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import torch

from mumc_model.checkpoint import save_weights
from mumc_model.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PretrainConfig,
    Recipe,
    TextConfig,
    VisionConfig,
)
from mumc_model.data.collate import PretrainBatch
from mumc_model.model import build_model
from mumc_model.privacy import AdapterConfig
from mumc_model.ranks import ALONE, join
from mumc_model.train import Pretrainer

CPU = torch.device("cpu")
STEPS = 3
MODEL = ModelConfig(
    vision=VisionConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2),
    text=TextConfig(width=16, text_layers=1, fusion_layers=2, heads=2, vocab_size=40, max_positions=16),
    projection=8,
    queue_size=20,
)
OBJECTIVE = ObjectiveConfig(patch_drop=0.25, mlm_probability=0.4, momentum=0.9, distill=0.4)
# A large epsilon: biases of attention keys have no gradient but rounding, which Adam would blow up to whole steps.
PRETRAIN = PretrainConfig(optimizer=OptimizerConfig(lr=1e-2, eps=1e-3, clip_norm=0.5), batch_size=6)
MUMC = Recipe(model=MODEL, objective=OBJECTIVE, pretrain=PRETRAIN)
CASES = {
    "even": (MUMC, (6, 6, 6)),
    "uneven": (replace(MUMC, objective=replace(OBJECTIVE, mim=0.5, teacher_order="albef")), (7, 8, 4)),
    "accumulated": (
        Recipe(
            model=replace(MODEL, vision=replace(MODEL.vision, stem="conv", stem_width=8)),
            objective=replace(OBJECTIVE, mim=1.0, mask_equal_captions=True),
            pretrain=replace(PRETRAIN, batch_size=12, accumulation=3, prox_mu=0.1),
        ),
        (13, 11, 13),
    ),
    "adapters": (replace(MUMC, pretrain=replace(PRETRAIN, adapters=AdapterConfig(rank=2, alpha=4.0))), (6, 5, 6)),
}
"""A recipe, and the pairs in each step's batch."""


class Noise:
    """Captioned noise in place of a site's data; some captions read the same."""

    tokenizer = SimpleNamespace(cls_id=2, mask_id=4)

    def __init__(self, sizes):
        self.sizes = sizes

    def batches(self, batch_size, seed, start_step=0, images=None):
        for step in count(start_step):
            batch = self.batch(self.sizes[step % len(self.sizes)], seed + step)
            yield batch if images is None else replace(batch, image_BCHW=batch.image_BCHW[images(len(batch))])

    def batch(self, pairs, seed):
        generator = torch.Generator().manual_seed(seed)
        ids_BL = torch.randint(5, 40, (pairs, 9), generator=generator)
        ids_BL[:, 0] = 2
        mask_BL = (torch.arange(9) < torch.randint(4, 10, (pairs, 1), generator=generator)).long()
        image_BCHW = torch.randn(pairs, 3, 32, 32, generator=generator, dtype=torch.float64)
        caption_id_B = torch.randint(pairs, (pairs,), generator=generator)
        return PretrainBatch(image_BCHW, ids_BL * mask_BL, mask_BL, caption_id_B)


def trained(case, ranks=ALONE):
    """Losses of each step and weights after two rounds, of which the second goes on with the first one's moments."""
    recipe, sizes = CASES[case]
    # Only what rank 0 starts from may count.
    subject = Pretrainer(build_model(recipe.model, ranks.rank).double(), recipe, CPU, ranks=ranks)
    for part in (subject.teacher, subject.queue, subject.mim_decoder):
        if part is not None:
            part.double()
    seen, data = [], Noise(sizes)
    for first in (0, STEPS)[: 1 if recipe.pretrain.adapters.rank else 2]:
        subject.run(
            data,
            first_step=first,
            steps=STEPS,
            total_steps=30,
            seed=5,
            on_step=lambda _, losses: seen.append(torch.tensor(list(losses.values()), dtype=torch.float64)),
        )
        seen.append(subject.queue.features()[0].sum(0))
    found = {f"seen.{number:02}": tensor for number, tensor in enumerate(seen)}
    return found | {name: weight.detach() for name, weight in subject._named_weights()}


def exchanged(ranks):
    """What rank r is told when it says r + 1 of its rows of 0 to 10."""
    own = ranks.share(11)
    own_b = torch.arange(11.0)[own].requires_grad_()
    gathered_B = ranks.gather(own_b[:, None] * torch.ones(2), 11)
    # Each rank weighs row B by its own factor, so the gradient of a row is the sum of all ranks' factors.
    (gathered_B[:, 0] * (ranks.rank + 1) * torch.arange(11.0)).sum().backward()
    extended, at_X = ranks.extend(
        torch.cat([own_b.detach(), torch.tensor([-1.0])]), torch.tensor([10, 0]), len(own_b), 11
    )
    weights = [
        torch.nn.Parameter(torch.zeros(size, dtype=kind)) for size, kind in ((3, torch.float32), (2, torch.float64))
    ]
    for weight in weights:
        weight.grad = torch.full_like(weight, ranks.rank + 1.0)
    ranks.sum_gradients([*weights, torch.nn.Parameter(torch.zeros(1))])
    first = torch.full((2,), float(ranks.rank) + 5)
    ranks.copy_first([first])
    return {
        "gathered": gathered_B.detach(),
        "gradient": own_b.grad,
        "wanted": extended[at_X],
        "extended": extended,
        "sum": ranks.sum({"a": torch.tensor(0.0), "b": torch.tensor(ranks.rank + 1.0)})["b"],
        "gradients": torch.cat([weight.grad.double() for weight in weights]),
        "first": first,
    }


def main(folder, rank, size):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with join(CPU, rank=rank, size=size, meeting=f"file://{folder}/meeting", timeout_s=60) as ranks:
        for case in CASES:
            save_weights(folder / f"{case}-{rank}.safetensors", trained(case, ranks))
        save_weights(folder / f"exchanged-{rank}.safetensors", exchanged(ranks))
