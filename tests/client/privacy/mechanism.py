"""A private trainer as small as it can be, and what is measured on it. The suite's checks of a mechanism stand here,
so that test_mutations.py can turn them on mechanisms that are broken on purpose.

Dimensions: B units, L tokens, C channels, H height, W width.
"""

from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import nn

from client.privacy.bank import Bank
from client.privacy.deferred import DeferredGradients
from client.privacy.gradients import LoopGradients, OpacusGradients
from client.privacy.objective import UnitBatch
from client.privacy.optimizer import PrivateOptimizer, clear
from client.privacy.randomness import KEY_BYTES, SecureSource
from client.privacy.train import PrivatePretrainer, PrivateSite
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
from mumc_model.privacy import AdapterConfig, BankConfig, PrivacyConfig

CPU = torch.device("cpu")
WAYS = ("hooks", "opacus", "loop")
LOSSES = ("mcl", "ucl", "itm", "mlm", "mim")
WORDS, TOKENS, SIDE, PAIRS = 40, 10, 16, 6
EXPECTED = 4
"""Public batch size of the trainers here."""


class Records:
    """Records in the place of a CaptionDataset: random pixels and tokens, several records a patient."""

    def __init__(self, count: int, seed: int, per_patient: int = 1, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self._pixels_NCHW = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        self._ids_NL = torch.randint(5, WORDS, (count, TOKENS), generator=generator)
        length_N = torch.randint(3, TOKENS + 1, (count, 1), generator=generator)
        self._ids_NL[torch.arange(TOKENS) >= length_N] = 0
        self._ids_NL[:, 0] = 1
        self.captions = tuple(f"caption {seed}-{row}" for row in range(count))
        self.keys = tuple(f"image-{row}" for row in range(count))
        self.patient_ids = tuple(f"patient-{row // per_patient}" for row in range(count))
        self.tokenizer = SimpleNamespace(cls_id=1, mask_id=2)

    def pixels(self, row_B):
        return self._pixels_NCHW[row_B]

    def pairs(self, row_B, generator=None):
        ids_BL = self._ids_NL[row_B]
        image_BCHW = self._pixels_NCHW[row_B].to(self.dtype) / 128 - 1
        return PretrainBatch(image_BCHW, ids_BL, (ids_BL != 0).long(), 100 + row_B)


def recipe(*, stem="linear", rank=0, way="hooks", losses=LOSSES, privacy=(), **objective) -> Recipe:
    vision = VisionConfig(
        image_size=SIDE, patch_size=8, width=16, depth=1, heads=2, mlp_ratio=2.0, stem=stem, stem_width=8
    )
    text = TextConfig(width=16, text_layers=1, fusion_layers=1, heads=2, vocab_size=WORDS, max_positions=16)
    weights = {name: float(name in losses) for name in LOSSES}
    settings = {
        "unit": "patient",
        "grad_sample": way,
        "expected_batch": EXPECTED,
        "physical_batch": 3,
        "bank": BankConfig(size=PAIRS),
        "adapters": AdapterConfig(rank=rank),
    }
    return Recipe(
        model=ModelConfig(vision=vision, text=text, projection=8),
        objective=ObjectiveConfig(**{"patch_drop": 0.5, "mlm_probability": 0.4, **weights, **objective}),
        pretrain=PretrainConfig(caption_tokens=TOKENS, optimizer=OptimizerConfig(lr=1e-3)),
        privacy=PrivacyConfig(**{**settings, **dict(privacy)}),
    )


def key(seed: int) -> bytes:
    return seed.to_bytes(KEY_BYTES, "big")


def trainer_of(settings: Recipe, *, double: bool = False, seed: int = 0) -> PrivatePretrainer:
    """A trainer whose weights are no longer those of a fresh start, so that no gradient is 0 by symmetry."""
    records = Records(PAIRS, 999)
    bank = Bank(records, torch.arange(PAIRS), CPU)
    found = PrivatePretrainer(build_model(settings.model, seed), settings, bank, CPU, source=SecureSource(key(seed)))
    generator = torch.Generator().manual_seed(seed)
    for weight in found.weights.values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    if double:
        records.dtype = torch.float64
        for module in (*found.roots, found.teacher):
            module.double()
    found.model.train()
    found.teacher.restart()
    found._encode_bank()
    return found


def dtype_of(trainer: PrivatePretrainer) -> torch.dtype:
    return next(iter(trainer.weights.values())).dtype


def units_of(trainer: PrivatePretrainer, count: int, seed: int = 0) -> UnitBatch:
    pairs = Records(count, seed, dtype=dtype_of(trainer)).pairs(torch.arange(count))
    return trainer._units(pairs, torch.Generator().manual_seed(seed))


def without(units, row: int):
    """The batch without one unit, of whatever kind it is."""
    kept = torch.arange(len(units)) != row
    return type(units)(*(tensor[kept] for tensor in vars(units).values()))


def loss_of(trainer: PrivatePretrainer, alpha: float = 0.4):
    return trainer._loss(alpha, [])


def way_of(name: str, weights, roots):
    """One of the three ways."""
    if name == "loop":
        return LoopGradients(weights)
    return (OpacusGradients if name == "opacus" else DeferredGradients)(weights, roots)


def clipped(gradients, weights, loss, batch, clipping_norm: float):
    """The clipped sum as one vector in double precision, and the units' norms."""
    if not len(batch):
        return take(weights), torch.zeros(0)
    norm_B = gradients.add(loss, batch, clipping_norm)
    return take(weights), norm_B.detach().double()


def take(weights) -> torch.Tensor:
    held = [(w, getattr(w, "summed_grad", None)) for w in weights.values()]
    flat = torch.cat([(torch.zeros_like(w) if s is None else s).detach().double().flatten() for w, s in held])
    clear(list(weights.values()))
    return flat


def check_bounded(gradients, weights, loss, units, row: int, clipping_norm: float, tolerance: float = 1e-6) -> None:
    """Leaving out one unit moves the clipped sum by the clipping norm at most."""
    whole = clipped(gradients, weights, loss, units, clipping_norm)[0]
    fewer = clipped(gradients, weights, loss, without(units, row), clipping_norm)[0]
    assert torch.isfinite(whole).all()
    assert (whole - fewer).norm() <= clipping_norm * (1 + tolerance)


def check_same_as_loop(gradients, weights, loss, units, clipping_norm: float, tolerance: float = 1e-9) -> None:
    """Norms and clipped sum are those of single units, each by itself."""
    expected, norm_B = clipped(LoopGradients(weights), weights, loss, units, clipping_norm)
    found, found_B = clipped(gradients, weights, loss, units, clipping_norm)
    assert norm_B.max() > 0
    assert torch.allclose(found_B, norm_B, rtol=tolerance, atol=0)
    assert (found - expected).norm() <= tolerance * clipping_norm * len(units)


def check_nan_adds_nothing(gradients, weights, loss, units, tolerance: float = 1e-9) -> None:
    """The sum with a unit of NaN pixels is that without the unit."""
    image_BCHW = units.image_BCHW.clone()
    image_BCHW[1] = torch.nan
    bad = clipped(gradients, weights, loss, replace(units, image_BCHW=image_BCHW), 1.0)[0]
    good = clipped(gradients, weights, loss, without(units, 1), 1.0)[0]
    assert torch.isfinite(bad).all()
    assert (bad - good).norm() <= tolerance


def private(weights: list[nn.Parameter], source: SecureSource, noise=1.0, clipping_norm=1.0, batch=EXPECTED):
    return PrivateOptimizer(
        torch.optim.SGD(weights, lr=0.0),
        noise_multiplier=noise,
        clipping_norm=clipping_norm,
        expected_batch=batch,
        source=source,
    )


def empty_steps(source: SecureSource, shapes, steps: int, **settings) -> list[torch.Tensor]:
    """For each weight its gradients of so many steps that no unit was sampled for, one a row."""
    weights = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = private(weights, source, **settings)
    rows: list[list[torch.Tensor]] = [[] for _ in weights]
    for _ in range(steps):
        optimizer.step()
        for row, weight in zip(rows, weights, strict=True):
            row.append(weight.grad.detach().flatten().clone())
        clear(weights)
    return [torch.stack(row) for row in rows]


def released(trainer: PrivatePretrainer, site: PrivateSite, steps: int = 1) -> list[float]:
    """Lengths of what steps release, times the public batch size, where nearly all of it is data."""
    lengths: list[float] = []
    kept = PrivateOptimizer.scale_grad

    def scale_grad(optimizer):
        kept(optimizer)
        squares = [weight.grad.double().square().sum() for weight in optimizer.params]
        lengths.append(float(torch.stack(squares).sum().sqrt()) * EXPECTED)

    PrivateOptimizer.scale_grad = scale_grad
    try:
        trainer.run(site, first_step=0, steps=steps, total_steps=steps)
    finally:
        PrivateOptimizer.scale_grad = kept
    return lengths


def site_of(records: Records, units) -> PrivateSite:
    return PrivateSite(
        records=records,
        rows=torch.arange(len(records.keys)),
        units=tuple(units),
        patients=frozenset(records.patient_ids),
        sample_rate=1.0,
    )
