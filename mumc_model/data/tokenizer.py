"""Text to token ids and back: BERT's WordPiece with MUMC's cleaning and its conventions for special tokens.

Dimensions: B texts, L tokens (padded to the longest).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from mumc_model.data.wordpiece import learn_pieces
from mumc_model.errors import ConfigError

PAD, UNK, CLS, SEP, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SIGNS = "-/<>%+="
"""What cleaning leaves in place and medical text uses."""
PUNCTUATION = re.compile(r"[,.'!?\"()*#:;~]")
CAPTION_WORDS = 30
QUESTION_WORDS = 50
SHIPPED = ("phantom",)


def clean_caption(text: str, max_words: int | None = CAPTION_WORDS) -> str:
    """The caption in lower case without punctuation, hyphens and slashes opened. Source: MUMC's `pre_caption`."""
    text = PUNCTUATION.sub("", text.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    return _first_words(re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" "), max_words)


def clean_question(text: str, max_words: int | None = QUESTION_WORDS) -> str:
    """The question in lower case without punctuation, VQA-RAD's shorthand resolved. Source: MUMC's `pre_question`."""
    text = PUNCTUATION.sub("", text.lower()).replace(" \t", " ").replace("is/are", "is").replace("near/in", "in")
    text = text.replace(">", "more than ").replace("-yes/no", "").replace("x ray", "xray").replace("x-ray", "xray")
    return _first_words(text.rstrip(" "), max_words)


def clean_answer(text: str) -> str:
    """The answer in lower case without punctuation. Source: MUMC's `pre_answer`."""
    text = PUNCTUATION.sub("", text.lower()).replace(" \t", " ")
    return text.replace("x ray", "xray").replace("x-ray", "xray").replace(" - ", "-")


def _first_words(text: str, limit: int | None) -> str:
    words = text.split(" ")
    return text if limit is None or len(words) <= limit else " ".join(words[:limit])


class Tokenizer:
    """WordPiece over a vocabulary that is a plain list of tokens, so that a server can send it as JSON."""

    def __init__(self, vocab: Sequence[str]) -> None:
        """Take the tokens in the order of their ids.

        Raises:
            ConfigError: a token is there twice, or one of the five special tokens is missing.
        """
        self.vocab = tuple(vocab)
        ids = {token: index for index, token in enumerate(self.vocab)}
        if len(ids) != len(self.vocab):
            raise ConfigError(f"the vocabulary repeats {len(self.vocab) - len(ids)} tokens; list each token once")
        missing = [token for token in SPECIALS if token not in ids]
        if missing:
            raise ConfigError(f"the vocabulary lacks {', '.join(missing)}; add them, anywhere in the list")
        self.size = len(self.vocab)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[token] for token in SPECIALS)
        self._pieces = _bert_pipeline(models.WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=100))

    @classmethod
    def from_file(cls, path: Path | str) -> "Tokenizer":
        """A vocabulary from `vocab.txt` (one token a line, as BERT's) or a JSON list.

        Raises:
            ConfigError: the file cannot be read or is neither.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            tokens = json.loads(text) if path.suffix == ".json" else text.split("\n")
        except (OSError, ValueError) as error:
            raise ConfigError(f"the vocabulary {path} cannot be read ({error}); give a vocab.txt or .json") from error
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ConfigError(f"the vocabulary {path} is not a JSON list of texts; write it as one list of tokens")
        while tokens and not tokens[-1]:
            tokens.pop()
        return cls([token.removesuffix("\r") for token in tokens])

    @classmethod
    def train(cls, corpus: Iterable[str], size: int) -> "Tokenizer":
        """A vocabulary of at most `size` tokens, letters, digits and a few signs among them; repeatable."""
        spelling = [*SPECIALS, *LETTERS, *SIGNS, *(f"##{letter}" for letter in LETTERS)]
        if size < len(spelling):
            raise ConfigError(f"a vocabulary of {size} tokens cannot spell; choose a size of at least {len(spelling)}")
        reader = _bert_pipeline(models.WordPiece(unk_token=UNK))
        words = Counter(
            word
            for text in corpus
            for cleaned in (clean_caption(text, None), clean_answer(text))
            for word, _ in reader.pre_tokenizer.pre_tokenize_str(reader.normalizer.normalize_str(cleaned))
        )
        return cls(learn_pieces(words, spelling, size))

    def captions(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Cleaned captions as [CLS] x [SEP]: ids_BL and mask_BL, both int64, at most `max_tokens` long."""
        rows = self._encode([clean_caption(text) for text in texts])
        return self._pad([[self.cls_id, *row[: max_tokens - 2], self.sep_id] for row in rows])

    def questions(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Cleaned questions as [CLS] x, without [SEP] as in MUMC: ids_BL and mask_BL."""
        rows = self._encode([clean_question(text) for text in texts])
        return self._pad([[self.cls_id, *row[: max_tokens - 1]] for row in rows])

    def answers(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Cleaned answers as [CLS] x [SEP], what a decoder that starts from [CLS] is taught: ids_BL and mask_BL.

        MUMC never truncates answers; `max_tokens` counts both special tokens and keeps the [SEP].
        """
        rows = self._encode([clean_answer(text) for text in texts])
        end = None if max_tokens is None else max_tokens - 2
        return self._pad([[self.cls_id, *row[:end], self.sep_id] for row in rows])

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first [SEP], without special tokens."""
        tokens: list[str] = []
        for index in map(int, ids):
            if index == self.sep_id:
                break
            if index not in (self.pad_id, self.cls_id, self.mask_id):
                tokens.append(self.vocab[index])
        return " ".join(tokens).replace(" ##", "").replace(" - ", "-")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._pieces.encode_batch(texts, add_special_tokens=False)]

    def _pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows), default=0)
        ids_BL = torch.tensor([row + [self.pad_id] * (longest - len(row)) for row in rows], dtype=torch.int64)
        lengths_B = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        mask_BL = (torch.arange(longest) < lengths_B[:, None]).long()
        return ids_BL.reshape(len(rows), longest), mask_BL


def vocabulary(source: str) -> Tokenizer:
    """The tokenizer of a vocabulary that is shipped (`phantom`) or lies in a file.

    Raises:
        ConfigError: there is no such vocabulary.
    """
    if source not in SHIPPED:
        return Tokenizer.from_file(source)
    with resources.as_file(resources.files("mumc_model.data") / f"{source}_vocab.json") as path:
        return Tokenizer.from_file(path)


def _bert_pipeline(model: models.Model) -> tokenizers.Tokenizer:
    """No special token is registered, so a text that spells one cannot forge it."""
    pipeline = tokenizers.Tokenizer(model)
    pipeline.normalizer = normalizers.BertNormalizer(lowercase=True)
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return pipeline
