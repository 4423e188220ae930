"""The objective: which losses there are, what each costs, and that sharing passes changes nothing."""

from dataclasses import replace

import pytest
import torch

from mumc_model import losses
from mumc_model.config import ObjectiveConfig
from mumc_model.errors import ConfigError
from mumc_model.masking import IGNORED, Draws, SpecialTokens
from mumc_model.model import build_model, initialise
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.vision import MimDecoder

OFF = {"mcl": 0.0, "ucl": 0.0, "itm": 0.0, "mlm": 0.0, "mim": 0.0}
TERMS = tuple(OFF)


def draws(seed=0):
    return Draws(torch.Generator().manual_seed(seed), SpecialTokens(cls_id=2, mask_id=4))


def objective(model_config, *, queue=None, seed=0, **settings):
    model = build_model(model_config, seed)
    config = ObjectiveConfig(**{"mlm_probability": 0.4, "patch_drop": 0.25, **settings})
    decoder = MimDecoder(model_config.vision, 1) if config.mim else None
    if decoder is not None:
        initialise(decoder, torch.Generator().manual_seed(1))
    return PretrainObjective(model, Teacher(model), queue, config, decoder)


def only(name, **settings):
    return {**OFF, name: 1.0, **settings}


@pytest.mark.parametrize("name", TERMS)
def test_each_loss_runs_alone_and_calls_for_no_part_it_does_not_need(name, small_config, captioned):
    subject = objective(small_config, **only(name, distill=0.0))
    called = set()
    model, teacher = subject.model, subject.teacher.model
    parts = {
        "text": model.text_encoder.bert.embeddings,
        "fusion": model.text_encoder.fusion[0].crossattention.output,
        "head": model.text_encoder.cls,
        "match": model.itm_head,
        "teacher": teacher.visual_encoder,
        "teacher text": teacher.text_encoder.bert.embeddings,
    }
    for part, module in parts.items():
        module.register_forward_hook(lambda *_, part=part: called.add(part))
    output = subject(captioned(), draws(), 0.0)
    output.total.backward()
    assert set(output.terms) == {name}
    contrast = {"text", "teacher", "teacher text"}
    needed = {"itm": {"text", "fusion", "match"}, "mlm": {"text", "fusion", "head"}, "mim": set()}
    assert called == needed.get(name, contrast)


def test_the_total_is_the_weighted_sum(small_config, captioned):
    weights = {"mcl": 0.5, "ucl": 2.0, "itm": 3.0, "mlm": 0.25, "mim": 4.0}
    output = objective(small_config, **weights)(captioned(), draws(), 0.4)
    assert set(output.terms) == set(weights)
    expected = sum(weights[name] * float(term) for name, term in output.terms.items())
    assert float(output.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_every_weight_learns(small_config, captioned):
    subject = objective(small_config, mim=1.0)
    subject(captioned(8), draws(), 0.4).total.backward()
    named = [*subject.model.named_parameters(), *subject.mim_decoder.named_parameters()]
    assert [name for name, weight in named if weight.requires_grad and weight.grad is None] == []
    assert all(weight.grad is None for weight in subject.teacher.parameters())


class Remembering(Draws):
    """Keeps what it drew."""

    def mask_tokens(self, *arguments):
        self.tokens = super().mask_tokens(*arguments)
        return self.tokens

    def keep_patches(self, *arguments):
        self.keeps = [*getattr(self, "keeps", []), super().keep_patches(*arguments)]
        return self.keeps[-1]

    def negatives(self, weights_BB):
        self.drawn = [*getattr(self, "drawn", []), super().negatives(weights_BB)]
        return self.drawn[-1]


def test_one_shared_pass_gives_what_separate_passes_give(small_config, captioned):
    subject, batch = objective(small_config), captioned(6)
    chosen = Remembering(torch.Generator().manual_seed(3), SpecialTokens(cls_id=2, mask_id=4))
    output = subject(batch, chosen, 0.0)
    model, text, mask = subject.model, subject.model.text_encoder, batch.mask_BL
    token_BKD, _ = model.image_features(batch.image_BCHW, chosen.keeps[0])
    hidden = text.encode(batch.ids_BL, mask)
    image_for_text, text_for_image = chosen.drawn
    passes = [
        text.fuse(hidden, mask, token_BKD),
        text.fuse(hidden, mask, token_BKD[image_for_text]),
        text.fuse(hidden[text_for_image], mask[text_for_image], token_BKD),
    ]
    logits = model.match_logits(torch.cat([states[:, 0] for states in passes]))
    torch.testing.assert_close(output.terms["itm"], losses.matching(logits, matched=6).detach())
    masked_ids, labels = chosen.tokens
    scores = text.mlm_logits(text.fuse(text.encode(masked_ids, mask), mask, token_BKD))
    expected = losses.masked_tokens(scores[labels != IGNORED], labels[labels != IGNORED])
    torch.testing.assert_close(output.terms["mlm"], expected.detach())


def test_when_all_captions_read_the_same_there_is_nothing_to_contrast(small_config, captioned):
    batch = replace(captioned(), caption_id_B=torch.zeros(4, dtype=torch.int64))
    for queue in (None, FeatureQueue(8, 8)):
        subject = objective(small_config, queue=queue, mask_equal_captions=True)
        for _ in range(2):
            terms = subject(batch, draws(), 0.4).terms
            assert float(terms["mcl"]) == pytest.approx(0.0, abs=1e-6)
            assert float(terms["ucl"]) == pytest.approx(0.0, abs=1e-6)
            assert torch.isfinite(terms["itm"])
    counted = objective(small_config)(batch, draws(), 0.4).terms
    assert float(counted["mcl"]) > 0.5


def test_queued_features_are_more_negatives(small_config, captioned):
    queue = FeatureQueue(8, 8)
    subject = objective(small_config, queue=queue)
    keys = []
    for seed in range(4):
        keys.append(subject(captioned(seed=seed), draws(), 0.0).trace["sim_i2t"].shape[1])
    assert keys == [4, 8, 12, 12]


def test_the_teacher_moves_once_a_step_and_not_for_later_parts(small_config, captioned):
    subject = objective(small_config, momentum=0.5)
    with torch.no_grad():
        subject.model.vision_proj.weight += 1.0
    before = subject.teacher.model.vision_proj.weight.clone()
    subject(captioned(), draws(), 0.0, move_teacher=False)
    assert torch.equal(subject.teacher.model.vision_proj.weight, before)
    subject(captioned(), draws(), 0.0)
    torch.testing.assert_close(subject.teacher.model.vision_proj.weight, before + 0.5)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_painting_dropped_patches_can_be_learned(stem, small_config, captioned):
    config = replace(small_config, vision=replace(small_config.vision, stem=stem))
    subject, batch = objective(config, **only("mim", patch_drop=0.5)), captioned()
    ramp = torch.linspace(-1, 1, 32)
    batch = replace(batch, image_BCHW=(ramp[None, :] + 3 * ramp[:, None]).expand(4, 3, 32, 32).contiguous())
    weights = [*subject.model.visual_encoder.parameters(), *subject.mim_decoder.parameters()]
    optimizer, seen = torch.optim.Adam([w for w in weights if w.requires_grad], 1e-2), []
    for seed in range(25):
        loss = subject(batch, draws(seed), 0.0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[0] == pytest.approx(1.0, abs=0.1)
    assert seen[-1] < 0.5


def test_a_batch_without_masked_tokens_costs_nothing_and_breaks_nothing(small_config, captioned):
    subject = objective(small_config, mlm_probability=0.0)
    output = subject(captioned(), draws(), 0.4)
    output.total.backward()
    assert float(output.terms["mlm"]) == 0.0
    assert all(w.grad is None or torch.isfinite(w.grad).all() for w in subject.model.parameters())


def test_bf16_is_finite_and_close_to_single_precision(small_config, captioned):
    outputs = []
    for enabled in (False, True):
        subject = objective(small_config, mim=1.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = subject(captioned(8), draws(), 0.4)
        output.total.backward()
        assert all(torch.isfinite(w.grad).all() for w in subject.model.parameters() if w.grad is not None)
        outputs.append(output)
    assert outputs[1].total.dtype == torch.float32
    assert outputs[1].trace["sim_i2t"].dtype == torch.float32
    for name, term in outputs[0].terms.items():
        assert float(outputs[1].terms[name]) == pytest.approx(float(term), rel=0.02), name


def test_an_active_loss_without_its_part_is_refused(small_config):
    model = build_model(small_config, 0)
    with pytest.raises(ConfigError, match="learn from a teacher"):
        PretrainObjective(model, None, None, ObjectiveConfig())
    with pytest.raises(ConfigError, match="needs its decoder"):
        PretrainObjective(model, None, None, ObjectiveConfig(**only("mim")))
    flat = build_model(replace(small_config, text=replace(small_config.text, fusion_layers=0)), 0)
    with pytest.raises(ConfigError, match="need fusion layers"):
        PretrainObjective(flat, None, None, ObjectiveConfig(**only("itm")))


def test_words_looked_up_have_a_whole_gradient_where_the_head_has_words_of_its_own(small_config, captioned):
    model = build_model(small_config, 0)
    head = model.text_encoder.cls.predictions.decoder
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    subject = PretrainObjective(model, Teacher(model), None, ObjectiveConfig(mlm_probability=0.4))
    subject(captioned(), draws(), 0.4).total.backward()
    gradient = model.text_encoder.bert.embeddings.word_embeddings.weight.grad
    assert gradient.layout == torch.strided
    assert gradient.any()
