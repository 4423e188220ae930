"""One file of an export, from its bytes to images and reports without identity: the work of an import's processes."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset

from client.intake import burned_in, reports
from client.intake.archive import Source
from client.intake.config import IntakeConfig
from client.intake.deidentify import deidentify, identity_words, patient_of
from client.intake.errors import UnusableSourceError
from client.intake.identity import Pseudonyms
from client.intake.outcome import Outcome, Picture, Text
from client.intake.reading import NO_PICTURE, has_pixels, parse, text_of
from client.intake.rendering import Eight, render
from client.intake.scrub import Scrubber
from mumc_model.data.files import write_atomically
from mumc_model.data.images import stored_form

STAGING = "state/intake"
"""Where images lie from the moment they are made until they are counted."""
NO_PATIENT = "no patient id, so that nothing can be known to be one person's"
PROVENANCE = "dicom"
"""The text of each PNG that holds its header without identity, as the JSON of PS3.18 Annex F."""
_PER_FRAME = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class Taking:
    """What every file of one import is taken with."""

    root: Path
    config: IntakeConfig
    key: bytes
    known_names: frozenset[str]
    """Words of the site's own list that no report may keep, in small letters."""

    def take(self, source: Source, digest: str) -> Outcome:
        """What came out of the file; whatever is wrong with it is a reason and no fault."""
        try:
            dataset = parse(source.read(self.config), self.config)
            patient = patient_of(dataset, self._pseudonyms)
            if not patient:
                raise UnusableSourceError(NO_PATIENT)
            words = identity_words(dataset)
            hashed = {patient: tuple(sorted(self._pseudonyms.word(word) for word in words))}
            if has_pixels(dataset):
                pictures = tuple(self._pictures(dataset, patient, digest))
                return Outcome(source=digest, stamp=source.stamp, pictures=pictures, words=hashed)
            if reports.is_report(dataset):
                texts = (self._text(dataset, patient, words),)
                return Outcome(source=digest, stamp=source.stamp, texts=texts, words=hashed)
            raise UnusableSourceError(NO_PICTURE)
        except UnusableSourceError as error:
            return Outcome(source=digest, stamp=source.stamp, left=error.reason)

    @property
    def _pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(self.key)

    def _pictures(self, dataset: Dataset, patient: str, digest: str) -> Iterator[Picture]:
        hint = burned_in.hint(dataset, self.config)
        for frame, pixels in render(dataset, self.config):
            found = burned_in.examine(pixels, hint, self.config)
            header = deidentify(dataset, self._pseudonyms, self.config, pixels_examined=found.verdict != "waiting")
            file = f"{STAGING}/{digest}-{frame}.png"
            write_atomically(self.root / file, _png(found.pixels, header, frame, self.config), durable=False)
            yield Picture(
                uid=str(header.SOPInstanceUID),
                frame=frame,
                patient=patient,
                study=str(header.StudyInstanceUID),
                series=str(header.SeriesInstanceUID),
                place=_number(dataset, "InstanceNumber"),
                accession=text_of(header, "AccessionNumber"),
                modality=text_of(header, "Modality"),
                organ=text_of(header, "BodyPartExamined").lower(),
                view=text_of(header, "ViewPosition"),
                verdict=found.verdict,
                reason=found.reason,
                file=file,
            )

    def _text(self, dataset: Dataset, patient: str, words: frozenset[str]) -> Text:
        header = deidentify(dataset, self._pseudonyms, self.config, pixels_examined=False)
        scrubbed = Scrubber(self.known_names, self.config).scrub(reports.text_of_report(dataset), words.__contains__)
        return Text(
            uid=str(header.SOPInstanceUID),
            patient=patient,
            study=str(header.StudyInstanceUID),
            accession=text_of(header, "AccessionNumber"),
            text=scrubbed.text,
            verdict=scrubbed.verdict,
            reason=scrubbed.reason,
        )


def provenance(path: Path) -> Dataset:
    """The header that an imported image carries, without identity.

    Raises:
        KeyError: the image was not imported from DICOM.
    """
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        return Dataset.from_json(image.info[PROVENANCE])


def _png(pixels: Eight, header: Dataset, frame: int, config: IntakeConfig) -> bytes:
    """The image at the size that is kept, with where it comes from inside it."""
    if _PER_FRAME in header:
        del header[_PER_FRAME]
    stored, _ = stored_form(Image.fromarray(pixels), config.max_side)
    info = PngInfo()
    info.add_itxt(PROVENANCE, json.dumps(header.to_json_dict(), sort_keys=True), zip=True)
    info.add_text("frame", str(frame))
    buffer = BytesIO()
    with Image.open(BytesIO(stored)) as image:
        image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _number(dataset: Dataset, name: str) -> int:
    text = text_of(dataset, name)
    # Python also calls a superscript a digit, and refuses to read thousands of them.
    return int(text) if re.fullmatch("[+-]?[0-9]{1,10}", text) else 0
