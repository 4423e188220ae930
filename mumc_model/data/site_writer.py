"""Writing a site's folder: what importers and simulated hospitals use, and nobody else."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from PIL import Image

from mumc_model.data.files import write_if_changed
from mumc_model.data.images import UnusableImageError, stored_form
from mumc_model.data.schema import PIXEL_CACHES, Unit, check_caption_row, check_question_row, image_key, read_settings
from mumc_model.errors import DataError

Source = Path | Image.Image
Progress = Callable[[int, int], None]


class SiteWriter:
    """Writes the records of one source into a site's folder.

    The new records appear when the writer is closed; until then, and when something fails, the old ones stay. Writing
    the same again changes no byte. A writer with a `source` owns `images/<source>/` and replaces only the rows of these
    images, so that several data sets live in one site; a writer without one replaces everything.
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
        self._merges = bool(source)
        self._images: dict[str, tuple[Source, str]] = {}
        self._captions: list[dict[str, Any]] = []
        self._questions: list[dict[str, Any]] = []
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
        if name in self._images:
            earlier, key = self._images[name]
            if earlier is not source and earlier != source:
                raise DataError("two different images were given the same name; name each image once")
            return key
        content, suffix = stored_form(source, self._max_side)
        key = f"{self._prefix}{_safe_name(name)}{suffix}"
        write_if_changed(self.root / key, content, durable=False)
        self._images[name] = (source, key)
        return key

    def add_images(
        self, sources: Mapping[str, Source], on_progress: Progress | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Store many images in parallel: the paths by name, and for those that cannot be used the reasons by name."""
        keys: dict[str, str] = {}
        problems: dict[str, str] = {}

        def store(name: str) -> None:
            try:
                keys[name] = self.add_image(sources[name], name)
            except UnusableImageError as error:
                problems[name] = error.reason

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(store, sources), start=1):
                if on_progress:
                    on_progress(done, len(sources))
        return keys, problems

    def add_caption(
        self, image: str, caption: str, *, patient_id: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        """One more row of captions.jsonl; without a patient the image stands in.

        Raises:
            DataError: `read_site` would leave the row out.
        """
        row = {"image": image, "caption": caption, "patient_id": patient_id or image}
        self._captions.append(check_caption_row(_with_labels(row, labels)))

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
        self._questions.append(check_question_row(_with_labels(row, labels)))

    def close(self) -> None:
        """Publish the records, and a site.yaml with name and unit where there is none."""
        settings = self.root / "site.yaml"
        if not settings.exists():
            write_if_changed(settings, yaml.safe_dump({"name": self._name, "unit": self._unit}).encode())
        self._publish("captions.jsonl", self._captions)
        self._publish("vqa.jsonl", self._questions)
        if self._merges:
            self._remove_orphans()

    def _publish(self, file_name: str, rows: Iterable[dict[str, Any]]) -> None:
        path = self.root / file_name
        kept = path.read_bytes().splitlines(keepends=True) if self._merges and path.exists() else []
        lines = [line for line in kept if not _is_about(line, self._prefix)]
        lines += [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
        write_if_changed(path, b"".join(lines))

    def _remove_orphans(self) -> None:
        """Delete images of this source that it no longer holds: a withdrawn patient must not stay on the disk."""
        keys = {key for _, key in self._images.values()}
        orphans = [path for path in (self.root / self._prefix).glob("*") if self._prefix + path.name not in keys]
        for path in [*orphans, *(self.root.glob(PIXEL_CACHES) if orphans else ())]:
            path.unlink(missing_ok=True)


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
