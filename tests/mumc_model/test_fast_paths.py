"""Every shortcut beside the plain way of computing the same; fused passes are in test_text.py and test_objective.py."""

import copy

import pytest
import torch
from torch.nn import functional as F

from mumc_model import bert
from mumc_model.bert import BertAttention
from mumc_model.config import ObjectiveConfig, OptimizerConfig, TextConfig
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import MaskedTexts, PretrainObjective
from mumc_model.optimizer import adamw, clip
from mumc_model.text import bidirectional_mask, causal_mask
from tests.mumc_model.conftest import CLS, MASK

CONFIG = TextConfig(width=16, text_layers=1, fusion_layers=1, heads=4, vocab_size=30, max_positions=12)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mask", [bidirectional_mask, causal_mask])
def test_fused_attention_is_a_softmax_over_scaled_products(mask):
    attention, hidden = BertAttention(CONFIG).eval(), noise(3, 5, 16)
    allowed = mask(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]))
    query, key, value = (
        part(hidden).view(3, 5, 4, 4).transpose(1, 2)
        for part in (attention.self.query, attention.self.key, attention.self.value)
    )
    weights = (query @ key.transpose(2, 3) / 2).masked_fill(~allowed, -torch.inf).softmax(3)
    plain = attention.output((weights @ value).transpose(1, 2).flatten(2), hidden)
    fused = attention(hidden, attention.keys_values(hidden), allowed)
    torch.testing.assert_close(fused, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mask", [bidirectional_mask, causal_mask, lambda _: None])
def test_attention_that_drops_is_the_fused_one_where_nothing_falls(mask, monkeypatch):
    hidden = noise(3, 5, 16)
    allowed = mask(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]))
    monkeypatch.setattr(bert, "drop", lambda values, share, *, training: values)
    attention, results = BertAttention(CONFIG), []
    for dropout in (0.1, 0.0):
        attention.self.dropout = dropout
        results.append(attention(hidden, attention.keys_values(hidden), allowed))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)


def test_attention_drops_weights_and_not_values(monkeypatch):
    attention, hidden, seen = BertAttention(CONFIG), noise(2, 5, 16), []
    attention.self.dropout = 0.25
    monkeypatch.setattr(bert, "drop", lambda values, share, *, training: seen.append((values, share)) or values)
    attention(hidden, attention.keys_values(hidden))
    ((weights, share),) = seen
    assert share == 0.25
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))


def test_the_fused_optimiser_takes_the_steps_of_the_plain_one():
    config = OptimizerConfig(lr=1e-2, weight_decay=0.1)
    fused, plain = ({"a": torch.nn.Parameter(noise(7, 5)), "b": torch.nn.Parameter(noise(3))} for _ in range(2))
    ours = adamw(fused, config)
    theirs = torch.optim.AdamW(
        list(plain.values()),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=False,
        fused=False,
    )
    for step in range(20):
        for weights in (fused, plain):
            for weight in weights.values():
                weight.grad = noise(*weight.shape, seed=step)
        ours.step()
        theirs.step()
    for name, weight in plain.items():
        torch.testing.assert_close(fused[name], weight, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("most", [0.5, 1e6])
def test_gradients_that_the_optimiser_shrinks_are_those_that_torch_shrinks(most):
    config = OptimizerConfig(lr=1e-2)
    ours, theirs = ({"a": torch.nn.Parameter(noise(7, 5)), "b": torch.nn.Parameter(noise(3))} for _ in range(2))
    optimizers = adamw(ours, config), adamw(theirs, config)
    for step in range(20):
        for weights in (ours, theirs):
            for weight in weights.values():
                weight.grad = (1 + step) * noise(*weight.shape, seed=step)
        clip(optimizers[0], ours, most)
        torch.nn.utils.clip_grad_norm_(theirs.values(), most)
        for optimizer in optimizers:
            optimizer.step()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-6, rtol=1e-5)


def test_the_teacher_moves_all_at_once_as_weight_by_weight(small_config):
    student = build_model(small_config, 0)
    teacher = Teacher(student)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.1)
    plain = {name: weight.clone() for name, weight in teacher.model.named_parameters()}
    teacher.update(0.9)
    for name, weight in teacher.model.named_parameters():
        expected = 0.9 * plain[name] + 0.1 * student.get_parameter(name).detach()
        torch.testing.assert_close(weight, expected, atol=1e-7, rtol=1e-6)


def test_the_head_on_masked_tokens_alone_gives_the_loss_and_gradients_of_the_whole(small_config, captioned):
    batch, losses, gradients = captioned(), [], []
    draws = Draws(torch.Generator().manual_seed(0), SpecialTokens(cls_id=CLS, mask_id=MASK))
    ids_BL, labels_BL = draws.mask_tokens(batch.ids_BL, batch.mask_BL, 0.5, small_config.text.vocab_size)
    for whole in (True, False):
        model = build_model(small_config, 0)
        token = model.visual_encoder(batch.image_BCHW)
        hidden = model.text_encoder.encode(ids_BL, batch.mask_BL)
        fused = model.text_encoder.fuse(hidden, batch.mask_BL, token)
        if whole:
            logits = model.text_encoder.mlm_logits(fused)
            loss = F.cross_entropy(logits.flatten(0, 1), labels_BL.flatten(), ignore_index=-100)
        else:
            masked = MaskedTexts.of(ids_BL, labels_BL, torch.device("cpu"))
            asked = fused.gather(1, masked.at_BQ[:, :, None].expand(-1, -1, fused.shape[2]))
            loss = F.cross_entropy(model.text_encoder.mlm_logits(masked.take(asked)), masked.labels_M)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(losses[0], losses[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_the_queue_that_is_written_later_holds_what_one_copied_at_each_step_holds():
    queue, plain = FeatureQueue(6, 2), torch.zeros(0, 2)
    for step in range(5):
        queue.enqueue(noise(4, 2, seed=step), noise(4, 2, seed=9 + step), torch.arange(4))
        plain = torch.cat([plain, noise(4, 2, seed=step)])[-6:]
        held, _, _ = queue.features()
        assert sorted(held.tolist()) == sorted(plain.tolist())


def test_half_precision_gives_the_gradients_of_single_within_its_own_rounding(small_config, captioned):
    gradients = []
    for half in (False, True):
        model = build_model(small_config, 0)
        objective = PretrainObjective(model, Teacher(model), None, ObjectiveConfig())
        draws = Draws(torch.Generator().manual_seed(1), SpecialTokens(cls_id=CLS, mask_id=MASK))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            output = objective(copy.deepcopy(captioned()), draws, 0.4)
        output.total.backward()
        gradients.append(torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None]))
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99
    assert gradients[1].dtype == torch.float32
