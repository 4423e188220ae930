import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mumc_model.data.tokenizer import SPECIALS, Tokenizer, clean_answer, clean_caption, clean_question, vocabulary
from mumc_model.errors import ConfigError

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[4] / "shared" / "goldens"))
VOCAB = Path(
    os.environ.get("MUMC_BERT_VOCAB", Path(__file__).parents[4] / "shared" / "vocab" / "bert-base-uncased.vocab.txt")
)
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="the reference's recorded goldens are not here")
CORPUS = ["Is there a large nodule in the left lung?", "large left nodule", "no effusion", "right lung: x-ray"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CORPUS, 120)


@needs_goldens
def test_golden_cleaning_agrees_with_the_reference_on_every_golden_case():
    for case in json.loads((GOLDENS / "text_bert_base_uncased.json").read_text()):
        assert clean_caption(case["s"]) == case["pre_caption"]
        assert clean_question(case["s"], 30) == case["pre_question_30"]
        assert clean_question(case["s"]) == case["pre_question_50"]
        assert clean_answer(case["s"]) == case["pre_answer"]


@needs_goldens
def test_golden_caption_ids_agree_with_the_reference_on_the_tiny_vocabulary():
    tokenizer = Tokenizer.from_file(GOLDENS / "tiny_vocab.txt")
    captions = json.loads((GOLDENS / "pretrain.json").read_text())["captions_raw"]
    for step, texts in enumerate(captions):
        golden = load_file(GOLDENS / f"pretrain_io{step}.safetensors")
        ids_BL, mask_BL = tokenizer.captions(texts, 25)
        assert torch.equal(ids_BL, golden["in.input_ids"])
        assert torch.equal(mask_BL, golden["in.attention_mask"])


@needs_goldens
@pytest.mark.skipif(not VOCAB.is_file(), reason="set MUMC_BERT_VOCAB to the vocab.txt of bert-base-uncased")
def test_golden_ids_agree_with_the_reference_on_the_vocabulary_of_bert_base_uncased():
    tokenizer = Tokenizer.from_file(VOCAB)
    for case in json.loads((GOLDENS / "text_bert_base_uncased.json").read_text()):
        assert tokenizer.captions([case["s"]], 25)[0][0].tolist() == case["pretrain_ids"]
        assert tokenizer.questions([case["s"]], 25)[0][0].tolist() == case["vqa_question_ids"]
        assert tokenizer.answers([case["s"]])[0][0].tolist() == case["vqa_answer_ids"]


def test_a_caption_ends_with_sep_a_question_does_not_and_an_answer_does(tokenizer):
    for encode, end in ((tokenizer.captions, tokenizer.sep_id), (tokenizer.answers, tokenizer.sep_id)):
        ids = encode(["left lung"], 25)[0][0].tolist()
        assert ids[0] == tokenizer.cls_id
        assert ids[-1] == end
    assert tokenizer.sep_id not in tokenizer.questions(["left lung"], 25)[0][0].tolist()


def test_shorter_texts_are_padded_and_the_mask_says_where(tokenizer):
    ids_BL, mask_BL = tokenizer.questions(["left lung", "left"], 25)
    assert ids_BL.dtype == mask_BL.dtype == torch.int64
    assert mask_BL.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert ids_BL[1, 2] == tokenizer.pad_id


def test_truncation_counts_the_special_tokens_and_keeps_sep(tokenizer):
    text = "left lung " * 20
    assert tokenizer.captions([text], 9)[0].shape == (1, 9)
    assert tokenizer.captions([text], 9)[0][0, -1] == tokenizer.sep_id
    assert tokenizer.questions([text], 9)[0].shape == (1, 9)
    assert tokenizer.answers([text], 9)[0][0, -1] == tokenizer.sep_id
    assert tokenizer.answers([text])[0].shape == (1, 42)


def test_no_texts_give_an_empty_batch(tokenizer):
    assert tokenizer.captions([], 25)[0].shape[0] == 0


def test_a_text_that_spells_a_special_token_cannot_forge_it(tokenizer):
    ids = tokenizer.questions(["yes [SEP] [MASK] [PAD] [CLS] no"], 50)[0][0].tolist()
    assert ids.count(tokenizer.cls_id) == 1
    assert not {tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id} & set(ids)


def test_training_twice_gives_the_same_vocabulary_and_the_order_of_texts_does_not_matter(tokenizer):
    assert Tokenizer.train(CORPUS[::-1], 120).vocab == tokenizer.vocab
    assert tokenizer.size <= 120
    assert tokenizer.vocab[:5] == SPECIALS


def test_frequent_words_become_single_tokens(tokenizer):
    assert {"nodule", "left", "lung"} <= set(tokenizer.vocab)


@given(st.text(alphabet="abcxyz019", min_size=1, max_size=12))
@settings(deadline=None)
def test_any_latin_word_survives_the_way_there_and_back(word):
    tokenizer = Tokenizer.train(["left"], 90)
    assert tokenizer.decode(tokenizer.answers([word])[0][0]) == clean_answer(word)


@given(st.lists(st.text(max_size=40), max_size=4), st.integers(2, 12))
@settings(deadline=None)
def test_any_text_gives_ids_of_the_vocabulary_within_the_limit(texts, limit):
    tokenizer = Tokenizer.train(["left"], 90)
    for encode in (tokenizer.captions, tokenizer.questions, tokenizer.answers):
        ids_BL, mask_BL = encode(texts, limit)
        assert ids_BL.shape == mask_BL.shape
        assert ids_BL.shape[1] <= limit
        assert ((ids_BL >= 0) & (ids_BL < tokenizer.size)).all()


def test_a_vocabulary_file_of_either_kind_gives_the_same_tokenizer(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(tokenizer.vocab) + "\n")
    (tmp_path / "vocab.json").write_text(json.dumps(tokenizer.vocab))
    assert vocabulary(str(tmp_path / "vocab.txt")).vocab == vocabulary(str(tmp_path / "vocab.json")).vocab
    assert vocabulary(str(tmp_path / "vocab.txt")).vocab == tokenizer.vocab


def test_a_vocabulary_that_repeats_or_lacks_tokens_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="repeats 1 token"):
        Tokenizer([*SPECIALS, "a", "a"])
    with pytest.raises(ConfigError, match=r"lacks \[MASK\]; add"):
        Tokenizer(SPECIALS[:4])
    with pytest.raises(ConfigError, match="cannot be read"):
        vocabulary(str(tmp_path / "absent.txt"))
    (tmp_path / "vocab.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="not a JSON list"):
        vocabulary(str(tmp_path / "vocab.json"))


def test_a_vocabulary_too_small_to_spell_is_refused():
    with pytest.raises(ConfigError, match="at least"):
        Tokenizer.train(CORPUS, 20)
