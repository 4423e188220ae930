"""An import of a hospital's archive: every file once, on all cores, to be interrupted and repeated as anyone likes."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.intake import reports
from client.intake.archive import Left, walk
from client.intake.config import IntakeConfig
from client.intake.identity import Pseudonyms
from client.intake.outcome import USABLE, Outcome, Picture
from client.intake.publish import IMAGES, publish
from client.intake.quarantine import FOLDER as QUARANTINE
from client.intake.scrub import Scrubber
from client.intake.store import Store
from client.intake.taking import STAGING, Taking
from client.intake.workers import Job, Workers
from mumc_model.data.schema import read_settings
from mumc_model.errors import DataError
from protocol.keyfiles import make_private_folder

TWICE = "an image that is in the export twice"
_COMMIT = 200
"""Files after which an interruption loses nothing that came before."""

Progress = Callable[[int, int], None]
"""Called with the files that are done and those that were found so far."""


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    files: int
    """That the export holds, but for those that are no files."""
    new: int
    """Of them, taken in this run: not known from an earlier one, or changed since."""
    images: int
    """Usable ones that the site now has of this export."""
    waiting: int
    """Images and reports in quarantine."""
    captions: int
    left_out: dict[str, int] = field(default_factory=dict)
    """By reason, what nothing came of."""


def import_dicom(source: Path, root: Path, config: IntakeConfig, on_progress: Progress | None = None) -> Imported:
    """Take an export into a site folder.

    Raises:
        DataError: there is nothing at the source, one of the two lies inside the other, or the site protects single
            images.
    """
    _check_places(source, root)
    for folder in ("state", STAGING, QUARANTINE):
        make_private_folder(root / folder)
    pseudonyms = Pseudonyms.of_site(root)
    taking = Taking(root, config, pseudonyms.key, reports.known_words(config))
    scrubber = Scrubber(taking.known_names, config)
    with Store(root) as store, Workers(taking) as workers:
        walked = _Walk(source, config, pseudonyms, store, on_progress)
        for outcome in workers.map(walked.fresh()):
            _keep(root, store, reports.scrubbed(outcome, scrubber, pseudonyms), walked)
            walked.taken()
        _delete(root, store.drop_unseen(walked.run))
        reports.take_beside(source, store, taking, walked.run)
        store.commit()
        captions = publish(root, store, config)
        counts, reasons = store.counts(), walked.left + Counter(store.reasons())
        waiting = counts.get("waiting", 0) + sum(1 for _ in store.texts(("waiting",)))
    usable = sum(counts.get(verdict, 0) for verdict in USABLE)
    return Imported(walked.files, walked.new, usable, waiting, captions, dict(sorted(reasons.items())))


class _Walk:
    """One pass over the export: what is new is handed out, what is known is counted."""

    def __init__(
        self, source: Path, config: IntakeConfig, pseudonyms: Pseudonyms, store: Store, on_progress: Progress | None
    ) -> None:
        self._source, self._config, self._pseudonyms, self._store = source, config, pseudonyms, store
        self._on_progress, self._done = on_progress, 0
        self.run, self.files, self.new = store.begin(config), 0, 0
        self.left: Counter[str] = Counter()

    def fresh(self) -> Iterator[Job]:
        for item in walk(self._source, self._config):
            if isinstance(item, Left):
                self.left[item.reason] += 1
                continue
            self.files += 1
            digest = self._pseudonyms.source(item.name)
            if reports.is_beside(item.name) or self._store.is_known(digest, item.stamp, self.run):
                self._tell()
            else:
                self.new += 1
                yield item, digest

    def taken(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self._done += 1
        if self._done % _COMMIT == 0:
            self._store.commit()
        if self._on_progress:
            self._on_progress(self._done, self.files)


def _keep(root: Path, store: Store, outcome: Outcome, walked: _Walk) -> None:
    """Move the images of one file to where they belong, then note them: what is noted is there."""
    _delete(root, store.forget(outcome.source))
    kept = tuple(replace(picture, file=_settled(picture)) for picture in outcome.pictures)
    twice = {(picture.uid, picture.frame) for picture in store.add(replace(outcome, pictures=kept), walked.run)}
    for staged, picture in zip(outcome.pictures, kept, strict=True):
        if (picture.uid, picture.frame) in twice:
            walked.left[TWICE] += 1
            (root / staged.file).unlink(missing_ok=True)
        else:
            (root / picture.file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / staged.file).replace(root / picture.file)


def _settled(picture: Picture) -> str:
    folder = QUARANTINE if picture.verdict == "waiting" else IMAGES
    return f"{folder}/{picture.name}.png"


def _delete(root: Path, files: list[str]) -> None:
    """A patient who was withdrawn from the export must not stay on the disk."""
    for file in files:
        (root / file).unlink(missing_ok=True)


def _check_places(source: Path, root: Path) -> None:
    if not source.exists():
        raise DataError("there is nothing at the source given; name the folder or the zip of the export")
    inner, outer = source.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DataError("the export and the site folder lie one in the other; keep them apart")
    if (root / "site.yaml").exists() and read_settings(root)[1] == "image":
        raise DataError(
            "an export knows its patients, but the site's folder protects single images; set `unit: patient` in its "
            "site.yaml, or import into another folder"
        )
