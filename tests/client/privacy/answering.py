"""A private finetuner as small as it can be, and questions for it."""

from types import SimpleNamespace

import torch

from client.privacy.finetune_train import PrivateFinetuner
from client.privacy.questions import made_up_units
from client.privacy.randomness import SecureSource
from mumc_model.config import FinetuneConfig, OptimizerConfig, Recipe
from mumc_model.model import build_model
from mumc_model.privacy import PrivacyConfig, PrivateFinetuneConfig
from tests.client.privacy import mechanism
from tests.client.privacy.mechanism import CPU, key

FREEZES = ("none", "vision", "encoders")
EXPECTED = 4


def recipe(freeze="none", *, stem="linear", way="hooks", steps=1, **settings) -> Recipe:
    """Settings of private fine-tuning; `settings` are those of `privacy.finetune`."""
    finetune = {"expected_batch": EXPECTED, "physical_batch": 2, **settings}
    return Recipe(
        model=mechanism.recipe(stem=stem).model,
        finetune=FinetuneConfig(
            steps=steps,
            freeze=freeze,
            question_tokens=7,
            answer_tokens=5,
            optimizer=OptimizerConfig(lr=1e-3, schedule="constant"),
        ),
        privacy=PrivacyConfig(unit="patient", grad_sample=way, finetune=PrivateFinetuneConfig(**finetune)),
    )


def trainer_of(settings: Recipe, *, double: bool = False, seed: int = 0) -> PrivateFinetuner:
    """A trainer whose weights are no longer those of a fresh start."""
    found = PrivateFinetuner(build_model(settings.model, seed), settings, CPU, source=SecureSource(key(seed)))
    generator = torch.Generator().manual_seed(seed)
    for weight in found.weights.values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    if double:
        found.model.double()
    found.model.train()
    return found


def units_of(trainer: PrivateFinetuner, count: int, seed: int = 0):
    return made_up_units(trainer.model, count, torch.Generator().manual_seed(seed))


def questions_of(trainer: PrivateFinetuner, owners, seen: list | None = None):
    """Made-up questions of these owners in the place of PrivateQuestions; rows that are asked for go to `seen`."""
    units = units_of(trainer, len(owners))

    def batch(row_B, generator):
        if seen is not None:
            seen.append(row_B)
        return type(units)(*(tensor[row_B] for tensor in vars(units).values()))

    return SimpleNamespace(units=tuple(owners), batch=batch)
