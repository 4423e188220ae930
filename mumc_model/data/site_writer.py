"""Writing a site's folder: what importers and simulated hospitals use, and nobody else."""

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from mumc_model.data.files import write_if_changed
from mumc_model.data.images import UNREADABLE, UnusableImageError, stored_form
from mumc_model.data.import_journal import ImportJournal, Source, Stored, content_digest, identity_of, mark_of
from mumc_model.data.lines import write_lines_if_changed
from mumc_model.data.schema import (
    MAX_LINE_BYTES,
    PIXEL_CACHES,
    Unit,
    UnusableRowError,
    check_caption_row,
    check_question_row,
    image_key,
    read_settings,
)
from mumc_model.errors import DataError

Progress = Callable[[int, int], None]


class SiteWriter:
    """Writes the records of one source into a site's folder.

    The new records appear when the writer is closed; until then, and when something fails, the old ones stay. Writing
    the same again changes no byte. A writer with a `source` owns `images/<source>/` and replaces only the rows of these
    images, so that several data sets live in one site; a writer without one replaces everything. A writer with a
    `source` also remembers in `state/` what it stored, and decodes no unchanged image a second time.
    """

    def __init__(
        self, root: Path | str, name: str, unit: Unit = "patient", *, source: str = "", max_side: int = 512
    ) -> None:
        """Images are stored at most `max_side` pixels long.

        Raises:
            DataError: the folder is a site whose unit is smaller than this data's.
        """
        self.root = Path(root)
        self._name, self._unit, self._max_side = name, unit, max_side
        self._prefix = f"images/{_safe_name(source)}/" if source else "images/"
        self._journal = ImportJournal(self.root / "state" / f"import-{_safe_name(source)}.jsonl") if source else None
        self._images: dict[str, tuple[bytes, str]] = {}
        self._adopted: set[str] = set()
        self._captions: list[bytes] = []
        self._questions: list[bytes] = []
        if (self.root / "site.yaml").exists() and (read_settings(self.root)[1], unit) == ("image", "patient"):
            raise DataError(
                "this data knows its patients, but the site's folder protects single images; "
                "set `unit: patient` in its site.yaml, or import into another folder"
            )

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish the records unless something failed."""
        if kind is None:
            self.close()

    def add_image(self, source: Source, name: str) -> str:
        """Store an image under a name of its own (no suffix needed); its path inside the folder comes back.

        Raises:
            UnusableImageError: the image cannot be read.
            DataError: another image has this name.
        """
        try:
            identity = identity_of(source)
        except (OSError, ValueError):
            raise UnusableImageError(UNREADABLE) from None
        if key := self.recall(identity, name):
            return key
        content, suffix = stored_form(source, self._max_side)
        key = self._key(name, suffix)
        with _disk_faults_explained():
            write_if_changed(self.root / key, content, durable=False)
            mark = mark_of(identity, name, self._max_side)
            if self._journal:
                self._journal.note(mark, Stored(suffix, content_digest(content)))
        self._images[name] = (mark, key)
        return key

    def recall(self, identity: bytes, name: str) -> str:
        """The path of an image that this import or an earlier one stored, without decoding it; empty for a new one.

        Raises:
            DataError: another image has this name.
        """
        mark = mark_of(identity, name, self._max_side)
        if name in self._images:
            earlier, key = self._images[name]
            if earlier != mark:
                raise DataError("two different images were given the same name; name each image once")
            return key
        stored = self._journal.find(mark) if self._journal else None
        if not stored or not _is_stored(self.root / self._key(name, stored.suffix), stored.digest):
            return ""
        key = self._key(name, stored.suffix)
        self._images[name] = (mark, key)
        return key

    def adopt(self, key: str) -> None:
        """Take an image as this source's own that already lies under this path in the folder."""
        self._adopted.add(key)

    def add_images(
        self, sources: Mapping[str, Source], on_progress: Progress | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Store many images in parallel: the paths by name, and for those that cannot be used the reasons by name."""
        return self.add_stream(sources.items(), len(sources), on_progress)

    def add_stream(
        self, sources: Iterable[tuple[str, Source]], total: int, on_progress: Progress | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """As `add_images`, for sources that are made one by one; only a few are held at once.

        Raises:
            DataError: the disk is full, or does not let itself be written.
        """
        keys: dict[str, str] = {}
        problems: dict[str, str] = {}

        def store(name: str, source: Source) -> None:
            try:
                keys[name] = self.add_image(source, name)
            except UnusableImageError as error:
                problems[name] = error.reason

        for done, future in enumerate(_in_parallel(store, sources), start=1):
            future.result()
            if on_progress:
                on_progress(done, total)
        return keys, problems

    def add_caption(
        self, image: str, caption: str, *, patient_id: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        """One more row of captions.jsonl; without a patient the image stands in.

        Raises:
            DataError: `read_site` would leave the row out.
        """
        row = {"image": image, "caption": caption, "patient_id": patient_id or image}
        self._captions.append(_line(check_caption_row(_with_labels(row, labels))))

    def add_question(
        self,
        image: str,
        question: str,
        answer: str,
        *,
        answer_type: str,
        question_type: str,
        split: str,
        patient_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """One more row of vqa.jsonl; without a patient the image stands in.

        Raises:
            DataError: `read_site` would leave the row out.
        """
        row = {"image": image, "question": question, "answer": answer, "answer_type": answer_type}
        row |= {"question_type": question_type, "patient_id": patient_id or image, "split": split}
        self._questions.append(_line(check_question_row(_with_labels(row, labels))))

    def close(self) -> None:
        """Publish the records, and a site.yaml with name and unit where there is none.

        Raises:
            DataError: the disk is full, or does not let itself be written.
        """
        settings = self.root / "site.yaml"
        with _disk_faults_explained():
            if not settings.exists():
                write_if_changed(settings, yaml.safe_dump({"name": self._name, "unit": self._unit}).encode())
            self._publish("captions.jsonl", self._captions)
            self._publish("vqa.jsonl", self._questions)
            if self._journal:
                self._remove_orphans()
                self._journal.keep(mark for mark, _ in self._images.values())

    def _publish(self, file_name: str, rows: list[bytes]) -> None:
        path = self.root / file_name

        def lines() -> Iterator[bytes]:
            if self._journal and path.exists():
                with path.open("rb") as kept:
                    yield from (line for line in kept if not _is_about(line, self._prefix))
            yield from rows

        write_lines_if_changed(path, lines)

    def _remove_orphans(self) -> None:
        """Delete images of this source that it no longer holds: a withdrawn patient must not stay on the disk."""
        keys = self._adopted | {key for _, key in self._images.values()}
        orphans = [path for path in (self.root / self._prefix).glob("*") if self._prefix + path.name not in keys]
        for path in [*orphans, *(self.root.glob(PIXEL_CACHES) if orphans else ())]:
            path.unlink(missing_ok=True)

    def _key(self, name: str, suffix: str) -> str:
        return f"{self._prefix}{_safe_name(name)}{suffix}"


def _in_parallel(
    store: Callable[[str, Source], None], sources: Iterable[tuple[str, Source]]
) -> Iterator["Future[None]"]:
    """The work on each source in order, with no more sources taken than the cores can keep busy."""
    cores = os.cpu_count() or 1
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for name, source in sources:
            waiting.append(pool.submit(store, name, source))
            if len(waiting) > 2 * cores:
                yield waiting.popleft()
        yield from waiting


@contextmanager
def _disk_faults_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the site's folder could not be written ({error.strerror}); make room or check its owner, and give the "
            "same command again: an import goes on where it was"
        ) from None


def _is_stored(path: Path, digest: bytes) -> bool:
    try:
        return content_digest(path.read_bytes()) == digest
    except OSError:
        return False


def _line(row: dict[str, Any]) -> bytes:
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise UnusableRowError("row too long")
    return line


def _with_labels(row: dict[str, Any], labels: Mapping[str, str] | None) -> dict[str, Any]:
    image_key(row["image"])
    return {**row, "labels": dict(labels)} if labels else row


def _safe_name(name: str) -> str:
    """The name as a file name on every system; where that changes it, a digest keeps it unique."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:80]
    if safe == name:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _is_about(line: bytes, prefix: str) -> bool:
    try:
        return str(json.loads(line)["image"]).startswith(prefix)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
