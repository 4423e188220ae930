"""The studies of a site that can be asked about, as its folder names them."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from client.privacy.ledger import Ledger
from client.site import open_folder
from mumc_model.data.records import CaptionRecord, VqaRecord

FILES = ("site.yaml", "captions.jsonl", "vqa.jsonl")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One image."""

    key: str
    """Its path inside the site's folder."""
    patient: str
    path: Path

    @property
    def name(self) -> str:
        """What a person looks for: the patient, where the site knows patients, and the file."""
        return self.key if self.patient == self.key else f"{self.patient} · {self.key}"


def studies(root: Path) -> dict[str, Study]:
    """Every image of the site by its key, patient by patient; those of withdrawn patients are left out.

    Raises:
        LedgerError, DataError, ConfigurationError: the folder cannot be used.
    """
    stamps = tuple((root / name).stat().st_mtime_ns if (root / name).is_file() else 0 for name in FILES)
    return _read(root, (*stamps, Ledger.open(root).excluded_count))


@lru_cache(maxsize=1)
def _read(root: Path, stamps: tuple[int, ...]) -> dict[str, Study]:
    data = open_folder(root).data
    rows: tuple[CaptionRecord | VqaRecord, ...] = (*data.captions, *data.vqa)
    found = {data.key(row): row for row in rows}
    listed = (Study(key=key, patient=row.patient_id, path=row.image) for key, row in found.items())
    return {study.key: study for study in sorted(listed, key=lambda study: (study.patient, study.key))}
