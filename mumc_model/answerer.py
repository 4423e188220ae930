"""A site's answering model with all it needs to answer: tokenizer, answer list, calibration. One folder; it stays here.

Dimensions: M members, K candidates, L tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from mumc_model.calibration import Calibration
from mumc_model.candidates import Candidates
from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.conformal import RISK
from mumc_model.data.files import write_atomically
from mumc_model.data.images import UnusableImageError
from mumc_model.data.pixels import decode_square
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import normalise
from mumc_model.errors import CheckpointError, ConfigError, DataError
from mumc_model.familiarity import LEVEL, Gate, image_features, question_features
from mumc_model.generate import generate
from mumc_model.members import forget_members, further_members, list_members, member_folder
from mumc_model.model_card import Facts
from mumc_model.pretrained import kind_of, load_tokenizer, read_config
from mumc_model.reply import NONE_OF_THESE, Familiarity, Reply, reply
from mumc_model.selective import AccuracyTable
from mumc_model.trust import Trust
from mumc_model.vqa import VqaModel

ANSWERS_FILE = "answers.json"
GATE_FILE = "familiarity.safetensors"
"""Features of the site's training images and questions; a model that may leave has none."""
MEASURED_FILE = "measured.json"
"""Right answers by confidence, once the test split was evaluated."""
SEVERAL = "an ensemble answers by the mean over its list, and has no words of its own; leave --method generate out"

__all__ = [
    "NONE_OF_THESE",
    "Answerer",
    "Reply",
    "is_answering",
    "keep_measured",
    "lists_answers",
    "mean_of",
    "read_image",
    "reply",
]


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """An answering model, or an ensemble of several, ready to be asked."""

    model: VqaModel
    tokenizer: Tokenizer
    texts: tuple[str, ...]
    """The answers that it ranks; empty for a model that came without a list, which can only generate."""
    calibration: Calibration = field(default_factory=Calibration)
    trust: Trust = field(default_factory=Trust)
    """What validation taught about how far to believe it."""
    others: tuple["Answerer", ...] = ()
    """Further members of an ensemble. The mean of all members' probabilities is what counts, and calibration and trust
    are those of the mean; what the others know of themselves alone does not count here."""

    @property
    def models(self) -> tuple[VqaModel, ...]:
        """The model of each member, the first being the one that an explanation looks at."""
        return self.model, *(other.model for other in self.others)

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

    def save(self, folder: str | Path, facts: Facts | None = None, others: Sequence[Facts] = ()) -> None:
        """Write the model's folder with the answer list in it; nothing of an earlier model's validation stays there.

        `others` are the facts of an ensemble's further members, which lie in folders of their own in it.
        """
        place, trust = Path(folder), self.trust
        forget_members(place)
        for stale in (GATE_FILE, MEASURED_FILE):
            (place / stale).unlink(missing_ok=True)
        answers: dict[str, Any] = {"answers": list(self.texts), "calibration": asdict(self.calibration)}
        if trust.known:
            answers["trust"] = trust.to_dict()
        content = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
        write_atomically(place / ANSWERS_FILE, content.encode())
        if trust.gate:
            save_weights(place / GATE_FILE, trust.gate.tensors())
        for number, other in enumerate(self.others, 2):
            other.save(member_folder(place, number), others[number - 2] if others else None)
        if self.others:
            list_members(place, 1 + len(self.others))
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
            trust = _open_trust(path.parent, found["trust"]) if "trust" in found else Trust()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{ANSWERS_FILE} of {path.parent.name} is damaged; fine-tune again") from error
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CheckpointError(f"{ANSWERS_FILE} of {path.parent.name} lists no texts; fine-tune again")
        return cls(
            model=model,
            tokenizer=tokenizer,
            texts=tuple(texts),
            calibration=calibration,
            trust=trust,
            others=tuple(cls.open(member) for member in further_members(path.parent)),
        )

    def ask(
        self,
        image: Path,
        question: str,
        *,
        device: torch.device,
        method: str = "rank",
        beams: int = 3,
        top: int = 5,
        question_type: str = "",
        risk: float = RISK,
        level: float = LEVEL,
    ) -> Reply:
        """The reply to one question about one image file.

        `question_type` is guessed from the words where it is not given, `risk` is that of the short list, and questions
        less usual than `level` are referred to a human.

        Raises:
            DataError: the image cannot be read, or there is no list to rank.
            ConfigError: the risk is not between 0 and 1, or an ensemble is to answer in words of its own.
        """
        if method == "generate" and self.others:
            raise ConfigError(SEVERAL)
        pixels_1CHW = read_image(image, self.model.visual_encoder.config.image_size)
        if method == "generate":
            return self._generate(pixels_1CHW, question, device, beams)
        return self.weigh(
            pixels_1CHW, question, device=device, top=top, question_type=question_type, risk=risk, level=level
        )

    def ask_blank(self, question: str, *, device: torch.device, top: int = 5, question_type: str = "") -> Reply:
        """What it answers where an evenly grey image takes the place of the patient's: what the words alone suggest."""
        side = self.model.visual_encoder.config.image_size
        asked = self.weigh(torch.zeros(1, 3, side, side), question, device=device, top=top, question_type=question_type)
        return Reply(answers=asked.answers, threshold=asked.threshold, question_type=asked.question_type)

    @torch.no_grad()
    def weigh(
        self,
        pixels_1CHW: torch.Tensor,
        question: str,
        *,
        device: torch.device,
        top: int = 5,
        question_type: str = "",
        risk: float = RISK,
        level: float = LEVEL,
    ) -> Reply:
        """The reply to a question about a normalised image, by ranking the list.

        Raises:
            DataError: there is no list to rank.
        """
        candidates = self.candidates.to(device)
        token_1SD, hidden_1LD, mask_1L = self._read(pixels_1CHW, question, device)
        each = [self._ranked(candidates, token_1SD, hidden_1LD, mask_1L)]
        each += [other._ranked(candidates, *other._read(pixels_1CHW, question, device)) for other in self.others]
        probability_1K = mean_of(each)
        kind = question_type or self.trust.types.guess(question)
        calibrated_K = self.calibration.apply(probability_1K, [kind])[0]
        found = replace(reply(self.texts, calibrated_K, self.calibration.threshold, top), question_type=kind)
        if self.others:
            first = sum(int(own_1K.argmax() == probability_1K.argmax()) for own_1K in each)
            found = replace(found, members=len(each), agreement=first / len(each))
        familiarity = self._familiarity(pixels_1CHW.to(device), hidden_1LD, mask_1L, level)
        return self.trust.judged(found, self.texts, calibrated_K, risk=risk, familiarity=familiarity)

    def _ranked(
        self, candidates: Candidates, token_1SD: torch.Tensor, hidden_1LD: torch.Tensor, mask_1L: torch.Tensor
    ) -> torch.Tensor:
        """This member's own probability 1K of each candidate, before calibration."""
        state_1LD = self.model.text_encoder.fuse(hidden_1LD, mask_1L, token_1SD)
        return self.model.rank(state_1LD, mask_1L, candidates).float().cpu()

    def _read(
        self, pixels_1CHW: torch.Tensor, question: str, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image tokens 1SD, and states 1LD of the question alone with their mask."""
        self.model.to(device).eval()
        ids_1L, mask_1L = (
            part.to(device) for part in self.tokenizer.questions([question], self.model.finetune.question_tokens)
        )
        return (
            self.model.visual_encoder(pixels_1CHW.to(device)),
            self.model.text_encoder.encode(ids_1L, mask_1L),
            mask_1L,
        )

    def _familiarity(
        self, pixels_1CHW: torch.Tensor, hidden_1LD: torch.Tensor, mask_1L: torch.Tensor, level: float
    ) -> Familiarity | None:
        gate = self.trust.gate
        if gate is None:
            return None
        return gate.judge(
            image_features(self.model.visual_encoder.patch_embed(pixels_1CHW)),
            question_features(hidden_1LD, mask_1L),
            level,
        )

    @torch.no_grad()
    def _generate(self, pixels_1CHW: torch.Tensor, question: str, device: torch.device, beams: int) -> Reply:
        token_1SD, hidden_1LD, mask_1L = self._read(pixels_1CHW, question, device)
        return self._written(self.model.text_encoder.fuse(hidden_1LD, mask_1L, token_1SD), mask_1L, beams)

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


def mean_of(each: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the members' probabilities; of equal ones it is the same to the bit."""
    return torch.stack([probability.double() for probability in each]).mean(0).float()


def _open_trust(folder: Path, values: Any) -> Trust:
    gate, counted = folder / GATE_FILE, folder / MEASURED_FILE
    trust = Trust.from_dict(values, Gate.from_tensors(load_weights(gate)) if gate.is_file() else None)
    if not counted.is_file():
        return trust
    return replace(trust, accuracy=AccuracyTable.from_dict(json.loads(counted.read_text(encoding="utf-8"))))


def keep_measured(folder: str | Path, accuracy: AccuracyTable) -> None:
    """Let accuracies that were counted on another split stand beside this model's answers from now on."""
    write_atomically(Path(folder) / MEASURED_FILE, json.dumps(accuracy.to_dict()).encode())


def is_answering(folder: str | Path) -> bool:
    """Whether a model's folder holds an answering model, and not encoders alone.

    Raises:
        CheckpointError: it holds no model.
    """
    return kind_of(read_config(folder)) == VqaModel.kind


def lists_answers(folder: str | Path) -> bool:
    """Whether an answering model's folder has a list, be it an empty one.

    A privately trained model has an empty one on purpose; an imported model has none, and may borrow a site's answers.
    """
    return (Path(folder) / ANSWERS_FILE).is_file()


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
