"""What came out of one file of an export: the same plain values in a worker, in the store and in the summary."""

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["clean", "redacted", "waiting", "released", "rejected"]
"""`waiting` is in quarantine until a person has `released` or `rejected` it."""

USABLE: tuple[Verdict, ...] = ("clean", "redacted", "released")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One frame that became an image. Identifiers are pseudonyms."""

    uid: str
    frame: int
    patient: str
    study: str
    series: str
    place: int
    """Of the image in its series, as the header numbers it."""
    accession: str
    modality: str
    organ: str
    view: str
    verdict: Verdict
    reason: str = ""
    """Why it waits."""
    file: str
    """Path of the PNG inside the site's folder: under `images/` or, while it waits, under `quarantine/`."""

    @property
    def name(self) -> str:
        """Its name among the images of the site."""
        return f"{self.uid.removeprefix('2.25.')}-{self.frame}"


@dataclass(frozen=True, kw_only=True)
class Text:
    """One report, its identities replaced."""

    uid: str
    patient: str
    study: str
    accession: str
    text: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What a Structured Report says, with all its identities: `reports.scrubbed` makes a `Text` of it."""

    uid: str
    patient: str
    study: str
    accession: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that one file gave."""

    source: str
    """Keyed digest of its name."""
    stamp: str
    pictures: tuple[Picture, ...] = ()
    texts: tuple[Text, ...] = ()
    spoken: Spoken | None = None
    """On its way from the process that read it to the one that cleans it; no store takes it."""
    left: str = ""
    """Why nothing came of it."""
    words: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """By patient, keyed digests of the words of their identity, which their reports must not hold."""
