"""An accelerator is never waited for inside a step: on the `meta` device, which has no data, a reader fails."""

import warnings
from contextlib import nullcontext

import pytest
import torch

from mumc_model.config import ObjectiveConfig, PretrainConfig, Recipe
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.train import Pretrainer
from mumc_model.vision import MimDecoder
from tests.mumc_model.conftest import CLS, MASK

META = torch.device("meta")


def steps_on(device, model_config, batch, steps, **settings):
    """Losses and gradients of steps whose draws are made on the CPU."""
    config = ObjectiveConfig(**settings)
    model = build_model(model_config, 0).to(device)
    decoder = MimDecoder(model_config.vision, 1).to(device) if config.mim else None
    queue = FeatureQueue(6, model_config.projection).to(device)
    objective = PretrainObjective(model, Teacher(model), queue, config, decoder)
    draws = Draws(torch.Generator().manual_seed(0), SpecialTokens(cls_id=CLS, mask_id=MASK))
    for _ in range(steps):
        output = objective(batch, draws, config.distill)
        output.total.backward()
    return output


@pytest.mark.parametrize("settings", [{}, {"mim": 1.0}, {"mask_equal_captions": True}, {"teacher_order": "albef"}])
def test_losses_gradients_teacher_and_queue_read_nothing_from_the_device(
    settings, small_config, captioned, monkeypatch
):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    output = steps_on(META, small_config, captioned(), 2, **settings)
    assert output.total.device == META
    assert set(output.terms) == {"mcl", "ucl", "itm", "mlm", *(["mim"] if "mim" in settings else [])}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here; the meta device stands in above")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_steps_on_a_gpu_never_wait_for_it(precision, small_config, captioned):
    """From the second step on: the first makes the optimiser's moments and chooses kernels."""
    device = torch.device("cuda")
    recipe = Recipe(model=small_config, objective=ObjectiveConfig(), pretrain=PretrainConfig(batch_size=4))
    trainer = Pretrainer(build_model(small_config, 0), recipe, device, precision)
    special, batch = SpecialTokens(cls_id=CLS, mask_id=MASK), captioned()
    trainer._begin_round()
    for step in range(3):
        draws = Draws(torch.Generator().manual_seed(step), special)
        with warnings.catch_warnings():
            # Torch warns that this mode does not see everything.
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            trainer._step(batch, draws, 0.4, [])
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_device_notices_a_reader():
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(torch.zeros((), device=META))
    with pytest.raises(NotImplementedError):
        torch.zeros(3, device=META).cpu()
