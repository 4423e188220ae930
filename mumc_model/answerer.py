"""A site's answering model with all it needs to answer: tokenizer, answer list, calibration. One folder; it stays here.

Dimensions: K candidates, L tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from PIL import Image

from mumc_model.calibration import Calibration
from mumc_model.candidates import Candidates
from mumc_model.data.files import write_atomically
from mumc_model.data.images import UnusableImageError
from mumc_model.data.pixels import decode_square
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import normalise
from mumc_model.errors import CheckpointError, DataError
from mumc_model.generate import generate
from mumc_model.model_card import Facts
from mumc_model.pretrained import load_tokenizer
from mumc_model.vqa import VqaModel

ANSWERS_FILE = "answers.json"
NONE_OF_THESE = "none of these"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answers to one question."""

    answers: tuple[tuple[str, float], ...]
    """The likeliest answers with their probabilities, the best first."""
    threshold: float = 0.0

    @property
    def answer(self) -> str:
        """The best answer, or that none of the list fits."""
        best, probability = self.answers[0]
        return best if probability >= self.threshold else NONE_OF_THESE


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """An answering model, ready to be asked."""

    model: VqaModel
    tokenizer: Tokenizer
    texts: tuple[str, ...]
    """The answers that it ranks; empty for a model that came without a list, which can only generate."""
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def method(self) -> str:
        """How it answers unless told otherwise: by its list, or in its own words."""
        return "rank" if self.texts else "generate"

    @cached_property
    def candidates(self) -> Candidates:
        """The answers as the decoder reads them, worked out at the first question.

        Raises:
            DataError: the model came without a list of answers.
        """
        if not self.texts:
            raise DataError(
                "this model came without a list of answers to rank; answer with --method generate, or fine-tune it "
                "with `mumc-site finetune`"
            )
        return Candidates.build(self.texts, *self.tokenizer.answers(self.texts, self.model.finetune.answer_tokens))

    def save(self, folder: str | Path, facts: Facts | None = None) -> None:
        """Write the model's folder with the answer list in it."""
        answers = {"answers": list(self.texts), "calibration": asdict(self.calibration)}
        content = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
        write_atomically(Path(folder) / ANSWERS_FILE, content.encode())
        self.model.save_pretrained(folder, tokenizer=self.tokenizer, facts=facts)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The answering model in a folder.

        Raises:
            CheckpointError: the folder holds none, or is damaged.
        """
        model, tokenizer = VqaModel.from_pretrained(folder), load_tokenizer(folder)
        path = Path(folder) / ANSWERS_FILE
        if not path.is_file():
            return cls(model=model, tokenizer=tokenizer, texts=())
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            texts, calibration = found["answers"], Calibration(**found["calibration"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{ANSWERS_FILE} of {path.parent.name} is damaged; fine-tune again") from error
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CheckpointError(f"{ANSWERS_FILE} of {path.parent.name} lists no texts; fine-tune again")
        return cls(model=model, tokenizer=tokenizer, texts=tuple(texts), calibration=calibration)

    def ask(
        self,
        image: Path,
        question: str,
        *,
        device: torch.device,
        method: str = "rank",
        beams: int = 3,
        top: int = 5,
    ) -> Reply:
        """The reply to one question about one image file.

        Raises:
            DataError: the image cannot be read, or there is no list to rank.
        """
        self.model.to(device).eval()
        ids_1L, mask_1L = (
            part.to(device) for part in self.tokenizer.questions([question], self.model.finetune.question_tokens)
        )
        pixels_1CHW = read_image(image, self.model.visual_encoder.config.image_size)
        with torch.no_grad():
            state_1LD = self.model.question_states(self.model.visual_encoder(pixels_1CHW.to(device)), ids_1L, mask_1L)
            if method == "generate":
                return self._written(state_1LD, mask_1L, beams)
            probability_1K = self.model.rank(state_1LD, mask_1L, self.candidates.to(device)).float().cpu()
        calibrated_K = self.calibration.apply(probability_1K)[0]
        return reply(self.texts, calibrated_K, self.calibration.threshold, top)

    def _written(self, state_1LD: torch.Tensor, mask_1L: torch.Tensor, beams: int) -> Reply:
        found = generate(
            self.model,
            state_1LD,
            mask_1L,
            cls_id=self.tokenizer.cls_id,
            sep_id=self.tokenizer.sep_id,
            max_tokens=self.model.finetune.answer_tokens,
            beams=beams,
        )
        return Reply(answers=((self.tokenizer.decode(found.ids[0]), float(found.probability_B[0])),))


def lists_answers(folder: str | Path) -> bool:
    """Whether an answering model's folder has a list, be it an empty one.

    A privately trained model has an empty one on purpose; an imported model has none, and may borrow a site's answers.
    """
    return (Path(folder) / ANSWERS_FILE).is_file()


def reply(texts: Sequence[str], probability_K: torch.Tensor, threshold: float, top: int) -> Reply:
    """The likeliest candidates and what they make of the question."""
    best = probability_K.topk(min(top, len(texts)))
    answers = zip((texts[place] for place in best.indices.tolist()), best.values.tolist(), strict=True)
    return Reply(answers=tuple(answers), threshold=threshold)


def read_image(path: Path, size: int) -> torch.Tensor:
    """One image file as a normalised batch 1CHW.

    Raises:
        DataError: it cannot be read.
    """
    try:
        pixels = decode_square(path, size, 3)
    except UnusableImageError as error:
        raise DataError(f"{path.name} cannot be used: {error.reason}; give a PNG or JPEG file") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name} cannot be read; check its path") from error
    return normalise(torch.from_numpy(pixels.copy())[None])
