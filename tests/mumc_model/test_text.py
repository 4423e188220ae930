"""The text encoder: BERT's numbers, masks that hide what they should, and pairs that cost less for the same result."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from mumc_model.config import TextConfig
from mumc_model.errors import ConfigError
from mumc_model.model import initialise
from mumc_model.text import Pairs, TextEncoder, bidirectional_mask, causal_mask

CONFIG = TextConfig(width=16, text_layers=1, fusion_layers=2, heads=2, vocab_size=40, max_positions=16)


@pytest.fixture
def encoder():
    encoder = TextEncoder(CONFIG)
    initialise(encoder, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return encoder


@pytest.fixture
def texts():
    ids_BL = torch.randint(5, 40, (3, 7), generator=torch.Generator().manual_seed(3))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[1, 5:] = 0
    return ids_BL, mask_BL


@pytest.fixture
def image():
    return torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(4))


def test_text_layers_and_head_are_berts_by_name_and_by_number(texts):
    ids_BL, mask_BL = texts
    config = TextConfig(width=16, text_layers=3, fusion_layers=0, heads=2, vocab_size=40, max_positions=16)
    settings = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    theirs = BertForMaskedLM(BertConfig(vocab_size=40, max_position_embeddings=16, **settings)).eval()
    ours = TextEncoder(config)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs(input_ids=ids_BL, attention_mask=mask_BL).logits
        logits = ours.mlm_logits(ours.encode(ids_BL, mask_BL))
    torch.testing.assert_close(logits[mask_BL.bool()], expected[mask_BL.bool()])


def test_the_last_token_changes_cls_in_both_halves(encoder, texts, image):
    ids_BL, mask_BL = texts
    changed = ids_BL.clone()
    changed[0, -1] = 5 if changed[0, -1] != 5 else 6
    for forward in (encoder.encode, lambda ids, mask: encoder.fuse(encoder.bert.embeddings(ids), mask, image)):
        before, after = forward(ids_BL, mask_BL)[:, 0], forward(changed, mask_BL)[:, 0]
        assert not torch.allclose(before[0], after[0], atol=1e-4)
        torch.testing.assert_close(before[1:], after[1:])


def test_padding_changes_nothing(encoder, texts, image):
    ids_BL, mask_BL = texts
    changed = ids_BL.where(mask_BL.bool(), 11)
    fused = [encoder.fuse(encoder.encode(ids, mask_BL), mask_BL, image)[1, :5] for ids in (ids_BL, changed)]
    short = encoder.fuse(encoder.encode(ids_BL[1:2, :5], mask_BL[1:2, :5]), mask_BL[1:2, :5], image[1:2])
    torch.testing.assert_close(*fused)
    torch.testing.assert_close(fused[0], short[0])


def test_the_image_changes_the_fused_text(encoder, texts, image):
    hidden = encoder.encode(*texts)
    assert not torch.allclose(encoder.fuse(hidden, texts[1], image), encoder.fuse(hidden, texts[1], 2 * image))


def test_texts_may_look_at_any_image(encoder, texts, image):
    hidden, choice = encoder.encode(*texts), torch.tensor([2, 0, 0])
    torch.testing.assert_close(
        encoder.fuse(hidden, texts[1], image, choice), encoder.fuse(hidden, texts[1], image[choice])
    )


@pytest.mark.parametrize("fusion_layers", [1, 2, 3])
def test_pairs_give_what_whole_passes_give_at_the_places_asked_for(fusion_layers, texts, image):
    encoder = TextEncoder(TextConfig(width=16, text_layers=1, fusion_layers=fusion_layers, heads=2, vocab_size=40))
    hidden, mask_BL = encoder.encode(*texts), texts[1]
    first = Pairs(text_X=torch.tensor([0, 1, 1]), image_X=torch.tensor([2, 0, 1]), at_XQ=torch.zeros(3, 1).long())
    second = Pairs(text_X=torch.tensor([2, 1]), image_X=torch.tensor([2, 2]), at_XQ=torch.tensor([[1, 4], [3, 0]]))
    third = Pairs(text_X=torch.tensor([1, 0]), image_X=None, at_XQ=torch.tensor([[2, 0], [0, 1]]))
    fourth = Pairs(text_X=torch.tensor([2, 2]), image_X=None, at_XQ=torch.tensor([[3], [1]]))
    groups = (first, second, third, fourth)
    found = encoder.fuse_pairs(hidden, mask_BL, image, groups)
    for pairs, states in zip(groups, found, strict=True):
        seen = image[: len(pairs.text_X)] if pairs.image_X is None else image[pairs.image_X]
        whole = encoder.fuse(hidden[pairs.text_X], mask_BL[pairs.text_X], seen)
        expected = torch.stack([row[places] for row, places in zip(whole, pairs.at_XQ, strict=True)])
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


def test_masks_show_exactly_what_they_say():
    mask_BL = torch.tensor([[1, 1, 0]])
    assert bidirectional_mask(mask_BL)[0, 0].tolist() == [[True, True, False]]
    assert causal_mask(mask_BL)[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def test_the_head_is_tied_to_the_words(encoder):
    assert encoder.cls.predictions.decoder.weight is encoder.bert.embeddings.word_embeddings.weight
    assert "cls.predictions.decoder.weight" not in dict(encoder.named_parameters())


def test_an_open_vocabulary_and_a_text_too_long_are_refused(encoder):
    with pytest.raises(ConfigError, match=r"text\.vocab_size is 0"):
        TextEncoder(TextConfig(width=16, text_layers=1, fusion_layers=1, heads=2))
    with pytest.raises(ConfigError, match=r"17 tokens exceeds text\.max_positions 16"):
        encoder.encode(torch.ones(1, 17, dtype=torch.int64), torch.ones(1, 17))
