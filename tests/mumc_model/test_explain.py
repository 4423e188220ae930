"""Explanations beside a slow, plain second writing of the rules, and beside what must hold of any model."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mumc_model import bert
from mumc_model.answerer import Answerer
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import ConfigError
from mumc_model.explain import METHODS, Asked, Explanation, explain, heat_of
from tests.mumc_model.test_vqa import QUESTION, QUESTION_MASK, answering, images, log_likelihood, tokens

ANSWERS = [(5,), (5, 7, 8), (9, 9)]
LONGEST = 5


def asked():
    return Asked(images(), QUESTION, QUESTION_MASK, *tokens(ANSWERS))


class Plain:
    """Attention written out in the model's own modules, and its softmaxed weights kept, of one question."""

    def __init__(self, monkeypatch, model):
        self.kept = []
        monkeypatch.setattr(bert, "_mix", self._mix)
        for block in model.visual_encoder.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda _, given, __: self._keep(given[0]))

    def _keep(self, weights):
        weights.retain_grad()
        self.kept.append(weights)
        return weights

    def _mix(self, query, key, value, mask, dropout):
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        scores = scores + torch.where(mask.expand_as(scores), 0.0, -1e30) if mask is not None else scores
        return self._keep(scores.softmax(-1)) @ value

    def weights(self, model, index):
        """Per attention the mean over heads of the positive part of map times gradient, as arrays, in order."""
        self.kept.clear()
        real = int(QUESTION_MASK[index].sum())
        ids, mask = QUESTION[index : index + 1, :real], QUESTION_MASK[index : index + 1, :real]
        state = model.question_states(model.visual_encoder(images()[index : index + 1]), ids, mask)
        log_likelihood(model, state[0], mask[0], ANSWERS[index]).mean().backward()
        return [np.maximum(0, (w * w.grad)[0].detach().double().numpy()).mean(0) for w in self.kept]


def rows_scaled(relevance):
    """Equations 8 and 9, an entry at a time."""
    size = len(relevance)
    result = np.eye(size)
    for row in range(size):
        taken = [relevance[row, column] - (row == column) for column in range(size)]
        for column in range(size):
            result[row, column] += taken[column] / sum(taken) if sum(taken) > 0 else 0
    return result


def chefer(maps, patches, words, answers):
    """Relevance of patches and words to each answer token: the paper's R, an equation a line, for this network."""
    ii, tt, aa = np.eye(patches), np.eye(words), np.eye(answers)
    ti, at, ai = np.zeros((words, patches)), np.zeros((answers, words)), np.zeros((answers, patches))
    looking, reading, *rest = maps
    fusion, decoder = rest[:4], rest[4:]
    ii = ii + looking @ ii
    tt, ti = tt + reading @ tt, ti + reading @ ti
    for own, cross in (fusion[:2], fusion[2:]):
        tt, ti = tt + own @ tt, ti + own @ ti
        ti = ti + rows_scaled(tt).T @ cross @ rows_scaled(ii)
    for own, cross in (decoder[:2], decoder[2:]):
        aa, at, ai = aa + own @ aa, at + own @ at, ai + own @ ai
        at, ai = at + rows_scaled(aa).T @ cross @ rows_scaled(tt), ai + cross @ ti
    return ai, at


def test_relevance_is_that_of_the_papers_rules_written_plainly(monkeypatch):
    found, model = heat_of(answering(), asked(), "relevance"), answering()
    plain = Plain(monkeypatch, model)
    for index, answer in enumerate(ANSWERS):
        words, answers = int(QUESTION_MASK[index].sum()), len(answer) + 1
        ai, at = chefer(plain.weights(model, index), 17, words, answers)
        np.testing.assert_allclose(found.patch_BN[index], ai.mean(0)[1:], rtol=2e-3, atol=1e-9)
        np.testing.assert_allclose(found.word_BL[index, :words], at.mean(0), rtol=2e-3, atol=1e-9)


def test_attention_is_one_map_of_the_middle_fusion_layer_times_its_gradient(monkeypatch):
    found, model = heat_of(answering(), asked(), "attention"), answering()
    plain = Plain(monkeypatch, model)
    for index in range(3):
        first_cross = plain.weights(model, index)[3][:, 1:]
        np.testing.assert_allclose(found.patch_BN[index], first_cross.sum(0), rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_depends_on_its_own_question_alone_and_on_no_padding(method):
    together, model = heat_of(answering(), asked(), method), answering()
    for index in range(3):
        words, answer = int(QUESTION_MASK[index].sum()), len(ANSWERS[index]) + 2
        alone = Asked(*(part[index : index + 1] for part in asked()))
        ids, mask = (part[:, :words] for part in (alone.ids_BL, alone.mask_BL))
        answers, answer_mask = (part[:, :answer] for part in (alone.answer_BA, alone.answer_mask_BA))
        heat = heat_of(model, Asked(alone.image_BCHW, ids, mask, answers, answer_mask), method)
        torch.testing.assert_close(heat.patch_BN[0], together.patch_BN[index], rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(heat.word_BL[0], together.word_BL[index, :words], rtol=1e-3, atol=1e-8)
    assert (together.word_BL[1, 2:] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_an_image_that_cannot_reach_the_answer_has_no_heat(method):
    model = answering()
    with torch.no_grad():
        for layer in model.text_encoder.fusion:
            layer.crossattention.output.dense.weight.zero_()
    assert heat_of(model, asked(), method).patch_BN.abs().max() == 0


@pytest.mark.parametrize("method", METHODS)
def test_no_weight_of_the_model_gathers_a_gradient_and_frozen_ones_explain_the_same(method):
    model = answering()
    learning = heat_of(model, asked(), method)
    assert all(weight.grad is None for weight in model.parameters())
    with torch.no_grad():
        frozen = heat_of(model.requires_grad_(False), asked(), method)
    torch.testing.assert_close(frozen, learning, rtol=1e-4, atol=1e-9)


def test_a_model_in_training_is_not_explained():
    with pytest.raises(ConfigError, match="training mode"):
        heat_of(answering().train(), asked())


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "mass", "lung", "is", "there", "fra", "##ct"]


@pytest.fixture
def answerer():
    words = [*VOCABULARY, *(f"w{number}" for number in range(30 - len(VOCABULARY)))]
    return Answerer(model=answering(), tokenizer=Tokenizer(words), texts=("yes", "no", "mass"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_what_is_explained_is_the_likeliest_answer_unless_another_is_given(answerer, picture, method):
    device = torch.device("cpu")
    best = answerer.ask(picture, "is there fract", device=device).answers[0][0]
    found = explain(answerer, picture, "Is there fract?", device=device, method=method)
    assert (found.answer, found.method) == (best, method)
    assert found.heat_PP.shape == (4, 4)
    assert found.heat_PP.max() == 1
    assert [word for word, _ in found.words] == ["is", "there", "fract"]
    assert sum(weight for _, weight in found.words) + float(found.relevance_L[0]) == pytest.approx(1)
    other = explain(answerer, picture, "is there fract", device=device, method=method, answer="mass")
    assert other.answer == "mass"
    assert (other.heat_PP - found.heat_PP).abs().max() > 1e-3


def test_an_unknown_method_is_named_with_the_known_ones(answerer, picture):
    with pytest.raises(ConfigError, match="relevance or attention"):
        explain(answerer, picture, "is there", device=torch.device("cpu"), method="magic")


def test_heat_over_an_image_is_its_patches_value_at_their_centres():
    heat = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    whole = Explanation(method="relevance", answer="", heat_PP=heat, relevance_L=torch.ones(1), tokens=("[CLS]",))
    drawn = whole.to_image((100, 60))
    assert drawn.shape == (60, 100)
    np.testing.assert_allclose(drawn[[0, 0, -1], [0, -1, 0]], [0, 1, 0.5])
    np.testing.assert_allclose(
        drawn[:, 50].mean(), F.interpolate(heat[None, None], (60, 100), mode="bilinear").mean(), atol=0.02
    )
