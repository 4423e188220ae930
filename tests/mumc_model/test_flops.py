"""A step's operations, counted by torch while it runs, against the closed form: nothing is computed in vain."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mumc_model.config import ObjectiveConfig
from mumc_model.flops import StepWork, image_tokens, step_flops
from mumc_model.masking import IGNORED, Draws, SpecialTokens
from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.vision import MimDecoder
from tests.mumc_model.conftest import CLS, MASK

PER_TEXT = 2


class EvenDraws(Draws):
    """The first words of every caption are masked, as many in each, so that no row is there for padding's sake."""

    def mask_tokens(self, ids_BL, mask_BL, probability, vocab_size):
        """Masked ids and labels."""
        chosen = torch.zeros_like(ids_BL, dtype=torch.bool)
        chosen[:, 1 : 1 + PER_TEXT] = True
        return ids_BL.masked_fill(chosen, MASK), ids_BL.masked_fill(~chosen, IGNORED)


def backward_twice_forward(_, query, key, value, *__, out_shape=None, **___):
    """Attention's gradients; torch counts that its kernel computes the scores again, which is no useful work."""
    return 2 * sdpa_flop_count(query, key, value)


def counted(model_config, settings, batch, queue):
    """Operations of one step of ours."""
    objective = ObjectiveConfig(**settings)
    model = build_model(model_config, 0)
    decoder = MimDecoder(model_config.vision, objective.mim_depth) if objective.mim else None
    subject = PretrainObjective(model, Teacher(model), queue, objective, decoder)
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    draws = EvenDraws(torch.Generator().manual_seed(0), SpecialTokens(cls_id=CLS, mask_id=MASK))
    with FlopCounterMode(display=False, custom_mapping={attention: backward_twice_forward}) as counter:
        subject(batch, draws, objective.distill).total.backward()
    return counter.get_total_flops()


def closed_form(model_config, settings, batch, keys):
    work = StepWork(
        batch=len(batch),
        tokens=batch.ids_BL.shape[1],
        masked=PER_TEXT * len(batch),
        keys=keys,
    )
    return step_flops(model_config, ObjectiveConfig(**settings), work)


CASES = {
    "mumc": {},
    "hard targets": {"distill": 0.0},
    "painting": {"mim": 1.0, "mim_depth": 2},
    "contrast alone": {"itm": 0.0, "mlm": 0.0},
    "within the modalities alone": {"mcl": 0.0, "itm": 0.0, "mlm": 0.0},
    "matching alone": {"mcl": 0.0, "ucl": 0.0, "mlm": 0.0, "distill": 0.0},
    "masked tokens alone": {"mcl": 0.0, "ucl": 0.0, "itm": 0.0},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_a_step_does_the_useful_operations_and_no_others(settings, small_config, captioned):
    batch = captioned()
    expected = closed_form(small_config, settings, batch, len(batch))
    assert counted(small_config, settings, batch, None) == sum(expected.values())


@pytest.mark.parametrize("layers", [1, 3])
def test_each_fusion_layer_does_its_share(layers, small_config, captioned):
    config = replace(small_config, text=replace(small_config.text, fusion_layers=layers))
    batch = captioned()
    assert counted(config, {}, batch, None) == sum(closed_form(config, {}, batch, len(batch)).values())


def test_a_convolutional_stem_is_counted_as_torch_does(small_config, captioned):
    config = replace(small_config, vision=replace(small_config.vision, stem="conv", stem_width=16))
    batch = captioned()
    assert counted(config, {}, batch, None) == sum(closed_form(config, {}, batch, len(batch)).values())


def test_the_queue_costs_its_similarities_alone(small_config, captioned):
    batch, queue = captioned(), FeatureQueue(6, small_config.projection)
    queue.enqueue(torch.zeros(6, 8), torch.zeros(6, 8), torch.arange(6))
    with_queue, without = (closed_form(small_config, {}, batch, len(batch) + rows) for rows in (6, 0))
    assert counted(small_config, {}, batch, queue) == sum(with_queue.values())
    assert {part for part in with_queue if with_queue[part] != without[part]} == {"contrast"}


def test_only_masked_tokens_reach_the_vocabulary(small_config, captioned):
    wide = replace(small_config, text=replace(small_config.text, vocab_size=10 * small_config.text.vocab_size))
    batch = captioned()
    grown = counted(wide, {}, batch, None) - counted(small_config, {}, batch, None)
    words, masked = 9 * small_config.text.vocab_size, PER_TEXT * len(batch)
    student_and_teacher = 3 + 1
    assert grown == student_and_teacher * 2 * masked * small_config.text.width * words


def test_a_view_has_the_kept_patches_and_the_first_token(small_config):
    assert image_tokens(small_config.vision, ObjectiveConfig(patch_drop=0.25)) == 1 + 12
