"""Synthetic hospitals, written as the site folders that real ones have: images, captions, questions and masks.

They differ by one number, `unlike`: in what they see (modality, organ, finding), in how often nothing is found, in how
their scanners render it and in how they word it. All is drawn from generators seeded by (seed, hospital, purpose), so
the same configuration and seed give the same bytes.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mumc_model.data.files import write_if_changed
from mumc_model.data.phantom_anatomy import Patient
from mumc_model.data.phantom_cases import MODALITIES, Case, draw_cases, hospital_shares, pooled_shares, shares_within
from mumc_model.data.phantom_images import Scanner, draw_image
from mumc_model.data.phantom_text import STYLES, ask_questions, question_capacity, write_captions
from mumc_model.data.records import SiteWriter
from mumc_model.errors import ConfigError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """How many synthetic hospitals there are, how large they are, and how unlike one another."""

    hospitals: int = 4
    images: int = 50
    """Images with captions at each hospital; none of them is asked about."""
    captions_per_image: int = 2
    train_questions: int = 150
    """Questions at each hospital whose answers its fine-tuning sees."""
    val_questions: int = 50
    test_questions: int = 100
    questions_per_image: int = 2
    images_per_patient: int = 2
    """Images of one body, each an examination of its own; a patient is in one split only."""
    image_size: int = 64
    """Side of the square images in pixels."""
    unlike: float = 1.0
    """0: all hospitals are alike; 1: each sees almost only its own part of modalities, organs and findings, with a
    scanner, a share of normal examinations and a wording of its own."""
    question_mix: Literal["uniform", "own"] = "uniform"
    """What questions are about: `uniform`, the mix of all hospitals together (the archives are skewed, the questions
    are not); `own`, the mix of the hospital's archive."""
    apart: str = ""
    """A modality that the last hospital alone sees, in its archive and its questions; it sees no other."""
    normal_share: float = 0.08
    """Share of examinations without a finding, over all hospitals."""
    closed_share: float = 0.25
    """Share of questions that are yes/no or a choice of two, half of each."""
    contrast: float = 1.0
    """How much findings differ from what surrounds them, as a factor: below 1 is harder."""
    noise: float = 1.0
    """Standard deviation of the images' noise, as a factor."""

    def __post_init__(self) -> None:
        """Refuse impossible sizes and shares."""
        for name in ("hospitals", "captions_per_image", "questions_per_image", "images_per_patient"):
            _require(getattr(self, name) >= 1, f"phantom.{name} is {getattr(self, name)}; choose at least 1")
        for name in ("images", "train_questions", "val_questions", "test_questions", "contrast", "noise"):
            _require(getattr(self, name) >= 0, f"phantom.{name} is {getattr(self, name)}; choose 0 or more")
        for name in ("unlike", "normal_share", "closed_share"):
            _require(0 <= getattr(self, name) <= 1, f"phantom.{name} is {getattr(self, name)}; choose it in [0, 1]")
        _require(self.image_size >= 16, f"phantom.image_size is {self.image_size}; findings need at least 16 pixels")
        _require(
            self.question_mix in ("uniform", "own"),
            f"phantom.question_mix is {self.question_mix!r}; choose 'uniform' or 'own'",
        )
        _require(
            not self.apart or (self.apart in MODALITIES and self.hospitals > 1),
            f"phantom.apart is {self.apart!r} with {self.hospitals} hospitals; choose one of {', '.join(MODALITIES)}, "
            "and at least 2 hospitals",
        )
        _require(
            self.questions_per_image <= question_capacity(),
            f"phantom.questions_per_image is {self.questions_per_image}, but a normal image allows "
            f"{question_capacity()} different questions; ask fewer of each image",
        )


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """What makes one synthetic hospital unlike the others."""

    name: str
    archive_shares: NDArray[np.float64]
    """Share of each cell (see phantom_cases) among captioned images."""
    asked_shares: NDArray[np.float64]
    """Share of each cell among images with questions."""
    normal_share: float
    scanner: Scanner
    style_weights: tuple[float, ...]
    """How often each caption style is used."""


def plan_hospitals(config: PhantomConfig, seed: int) -> list[Hospital]:
    """The hospitals of a federation, without any image."""
    pooled_HC = [_pooled(config, number) for number in range(1, config.hospitals + 1)]
    rng, shared = _generator(seed, 0, "shares"), config.hospitals - bool(config.apart)
    archives_HC = [*hospital_shares(shared, config.unlike, rng, pooled_HC[0]), *pooled_HC[shared:]]
    return [
        _plan_hospital(config, seed, number, *shares)
        for number, shares in enumerate(zip(archives_HC, pooled_HC, strict=True), start=1)
    ]


def _pooled(config: PhantomConfig, number: int) -> NDArray[np.float64]:
    """Share of each cell in the part of the world that this hospital belongs to."""
    if not config.apart:
        return pooled_shares()
    last = number == config.hospitals
    return shares_within([modality for modality in MODALITIES if (modality == config.apart) == last])


def write_hospitals(
    config: PhantomConfig, dst: Path | str, seed: int, *, on_progress: Progress | None = None
) -> list[Path]:
    """Write every hospital as a site folder under `dst`; their paths come back. Writing again changes no byte."""
    hospitals = plan_hospitals(config, seed)
    folders = [Path(dst) / hospital.name for hospital in hospitals]
    for done, (hospital, folder) in enumerate(zip(hospitals, folders, strict=True), start=1):
        with SiteWriter(folder, hospital.name, max_side=config.image_size) as writer:
            _Archive(config, hospital, writer, seed, done).write()
        if on_progress:
            on_progress(done, len(hospitals))
    return folders


def _plan_hospital(
    config: PhantomConfig, seed: int, number: int, shares_C: NDArray[np.float64], pooled_C: NDArray[np.float64]
) -> Hospital:
    rng = _generator(seed, number, "plan")
    own_style = np.eye(len(STYLES))[(number - 1) % len(STYLES)]
    style_weights = (1 - config.unlike) / len(STYLES) + config.unlike * own_style
    return Hospital(
        name=f"hospital-{number}",
        archive_shares=shares_C,
        asked_shares=shares_C if config.question_mix == "own" else pooled_C,
        normal_share=min(1.0, config.normal_share * float(np.exp(config.unlike * rng.uniform(-1, 1)))),
        scanner=Scanner.draw(config.unlike, config.contrast, config.noise, rng),
        style_weights=tuple(style_weights.tolist()),
    )


class _Archive:
    """One hospital's folder while it is written; patients are numbered through, so none is in two splits."""

    def __init__(self, config: PhantomConfig, hospital: Hospital, writer: SiteWriter, seed: int, number: int) -> None:
        self._config, self._hospital, self._writer = config, hospital, writer
        self._seed, self._number = seed, number
        self._patients = 0

    def write(self) -> None:
        """All captions, then the questions of each split."""
        config = self._config
        self._write_captions()
        self._write_questions("train", config.train_questions)
        self._write_questions("val", config.val_questions)
        self._write_questions("test", config.test_questions)

    def _write_captions(self) -> None:
        config, hospital = self._config, self._hospital
        rng = self._rng("captions")
        cases = draw_cases(config.images, hospital.archive_shares, hospital.normal_share, rng)
        for case, (key, patient, _) in zip(cases, self._examine(cases), strict=True):
            for caption in write_captions(case, config.captions_per_image, hospital.style_weights, rng):
                self._writer.add_caption(key, caption, patient_id=patient, labels=case.labels())

    def _write_questions(self, split: str, count: int) -> None:
        if count == 0:
            return
        config, hospital = self._config, self._hospital
        rng = self._rng(split)
        images = -(-count // config.questions_per_image)
        normal_share = hospital.normal_share if config.question_mix == "own" else config.normal_share
        cases = draw_cases(images, hospital.asked_shares, normal_share, rng)
        asked = ask_questions(cases, count, config.closed_share, rng)
        for case, questions, (key, patient, mask_HW) in zip(cases, asked, self._examine(cases), strict=True):
            if not case.normal:
                write_if_changed(self._writer.root / "masks" / Path(key).name, _png(mask_HW), durable=False)
            for question in questions:
                row = vars(question) | {"question": question.text}
                del row["text"]
                self._writer.add_question(key, **row, split=split, patient_id=patient, labels=case.labels())

    def _examine(self, cases: list[Case]) -> list[tuple[str, str, NDArray[np.bool_]]]:
        """Draw and store an image of each case: its path, its patient and its finding's mask."""
        size = self._config.images_per_patient
        taken = []
        for start in range(0, len(cases), size):
            self._patients += 1
            identity = f"h{self._number}-p{self._patients:04d}"
            rng = self._rng(identity)
            patient = Patient.draw(rng)
            for number, case in enumerate(cases[start : start + size], start=1):
                grey_HW, mask_HW = draw_image(case, patient, self._hospital.scanner, self._config.image_size, rng)
                key = self._writer.add_image(Image.fromarray(grey_HW), f"{identity}-{number}")
                taken.append((key, identity, mask_HW))
        return taken

    def _rng(self, purpose: str) -> np.random.Generator:
        return _generator(self._seed, self._number, purpose)


def _generator(seed: int, hospital: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, hospital, zlib.crc32(purpose.encode())])


def _png(mask_HW: NDArray[np.bool_]) -> bytes:
    content = BytesIO()
    Image.fromarray(mask_HW.astype(np.uint8) * 255).save(content, "PNG")
    return content.getvalue()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
