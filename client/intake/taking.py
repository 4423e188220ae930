"""One file of an export, from its bytes to images and reports without identity: the work of an import's processes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from client.intake import burned_in, reports
from client.intake.archive import Source
from client.intake.config import IntakeConfig
from client.intake.deidentify import deidentify, identity_words, patient_of, with_clean_pixels
from client.intake.errors import UnusableSourceError
from client.intake.identity import Pseudonyms
from client.intake.outcome import Outcome, Picture, Spoken
from client.intake.provenance import png
from client.intake.reading import NO_PICTURE, has_pixels, parse, text_of
from client.intake.rendering import render
from mumc_model.data.files import write_atomically

STAGING = "state/intake"
"""Where images lie from the moment they are made until they are counted."""
NO_PATIENT = "no patient id, so that nothing can be known to be one person's"


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
                spoken = self._spoken(dataset, patient)
                return Outcome(source=digest, stamp=source.stamp, spoken=spoken, words=hashed)
            raise UnusableSourceError(NO_PICTURE)
        except UnusableSourceError as error:
            return Outcome(source=digest, stamp=source.stamp, left=error.reason)

    @property
    def _pseudonyms(self) -> Pseudonyms:
        return Pseudonyms(self.key)

    def _pictures(self, dataset: Dataset, patient: str, digest: str) -> Iterator[Picture]:
        hint = burned_in.hint(dataset, self.config)
        # Once for all frames of an object: only what was found in their pixels tells their headers apart.
        cleaned = deidentify(dataset, self._pseudonyms, self.config, pixels_examined=False)
        headers = {False: cleaned, True: with_clean_pixels(cleaned)}
        for frame, pixels in render(dataset, self.config):
            found = burned_in.examine(pixels, hint, self.config)
            header = headers[found.verdict != "waiting"]
            file = f"{STAGING}/{digest}-{frame}.png"
            write_atomically(self.root / file, png(found.pixels, header, frame, self.config.max_side), durable=False)
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

    def _spoken(self, dataset: Dataset, patient: str) -> Spoken:
        header = deidentify(dataset, self._pseudonyms, self.config, pixels_examined=False)
        return Spoken(
            uid=str(header.SOPInstanceUID),
            patient=patient,
            study=str(header.StudyInstanceUID),
            accession=text_of(header, "AccessionNumber"),
            text=reports.text_of_report(dataset),
        )


def _number(dataset: Dataset, name: str) -> int:
    text = text_of(dataset, name)
    # Python also calls a superscript a digit, and refuses to read thousands of them.
    return int(text) if re.fullmatch("[+-]?[0-9]{1,10}", text) else 0
