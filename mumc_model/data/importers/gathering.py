"""What all importers share: rows are gathered first, then images are stored, then the site's folder changes at once."""

import inspect
import json
import typing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from mumc_model.data.import_journal import content_digest
from mumc_model.data.protocols import LABEL
from mumc_model.data.schema import OUTSIDE, Unit, UnusableRowError, image_key
from mumc_model.data.site_writer import Progress, SiteWriter
from mumc_model.errors import ConfigError, DataError

Importer = Callable[..., "ImportSummary"]
"""`(src, dst, *, on_progress=None, **options)`; options may be text, as a command line gives them."""


Contents = Callable[[], Iterable[bytes]]
"""The contents of all images that are no files of their own, one by one, from the first each time it is called."""
Row = tuple[str, dict[str, Any]]
MISSING = "image missing"


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote, and what it did not."""

    images: int
    captions: int
    questions: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows (or images, where it says so) left out, by reason."""


class Gathering:
    """Rows of a set before anything is written; rows that cannot be used are counted."""

    def __init__(self, kind: str, unit: Unit = "image", *, protocol: str = "") -> None:
        """`kind` names the set: its images live in `images/<kind>/`. `protocol` is the split that is asked under."""
        self._kind, self._unit, self._protocol = kind, unit, protocol
        self._sources: dict[str, Path | None] = {}
        self._captions: deque[Row] = deque()
        self._questions: deque[Row] = deque()
        self.left_out: Counter[str] = Counter()

    def add_caption(self, source: Path | None, name: str, caption: str, **more: Any) -> None:
        """One caption of the image at `source`, which is stored under `name`.

        Without a source the image is one of the contents that `write` is given, and `name` is what `content_name` says.
        """
        self._sources[name] = source
        self._captions.append((name, {"caption": caption.strip(), **more}))

    def add_question(self, source: Path | None, name: str, **row: Any) -> None:
        """One question about an image as in `add_caption`; the row as `SiteWriter.add_question` takes it."""
        self._sources[name] = source
        if self._protocol:
            row["labels"] = {**(row.get("labels") or {}), LABEL: self._protocol}
        self._questions.append((name, row))

    def write(
        self, dst: Path, max_side: int, on_progress: Progress | None, contents: Contents | None = None
    ) -> ImportSummary:
        """The summary, once the folder holds the usable rows.

        Raises:
            DataError: there are none; the folder's rows stay as they were. Or the folder cannot be written.
        """
        writer = SiteWriter(dst, self._kind, self._unit, source=self._kind, max_side=max_side)
        files = {name: path for name, path in self._sources.items() if path and is_file(path)}
        inner = {name for name, path in self._sources.items() if not path}
        known = {name: key for name in inner if (key := writer.recall(bytes.fromhex(name), name))}
        streamed = _wanted(contents, inner - known.keys()) if contents and len(inner) > len(known) else ()
        total = len(files) + len(inner)
        if known and on_progress:
            on_progress(len(known), total)
        stored, problems = writer.add_stream(
            chain(files.items(), streamed), total, on_progress and _from(len(known), on_progress)
        )
        keys = stored | known
        problems |= dict.fromkeys(self._sources.keys() - keys.keys() - problems.keys(), MISSING)
        self._sources.clear()
        captions = self._store(self._captions, writer.add_caption, keys, problems)
        questions = self._store(self._questions, writer.add_question, keys, problems)
        if not captions and not questions:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.left_out.items())) or "no rows"
            raise DataError(f"nothing could be imported ({reasons}); check that this is the folder of {self._kind}")
        writer.close()
        return ImportSummary(len(keys), captions, questions, dict(self.left_out))

    def _store(
        self, rows: deque[Row], add: Callable[..., None], keys: Mapping[str, str], problems: Mapping[str, str]
    ) -> int:
        stored = 0
        while rows:
            name, row = rows.popleft()
            if name in problems:
                self.left_out[problems[name]] += 1
                continue
            try:
                add(keys[name], **row)
                stored += 1
            except UnusableRowError as error:
                self.left_out[error.reason] += 1
        return stored


def content_name(content: bytes) -> str:
    """The name of an image that is no file of its own: what is in it."""
    return content_digest(content).hex()


def _wanted(contents: Contents, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Each content that has one of these names, once."""
    left = set(names)
    for content in contents():
        name = content_name(content)
        if name in left:
            left.remove(name)
            yield name, content


def _from(before: int, on_progress: Progress) -> Progress:
    return lambda done, total: on_progress(before + done, total)


def importer(function: Importer) -> Importer:
    """The importer with its door checked: the source exists, options are known, and text becomes what it stands for."""
    hints = typing.get_type_hints(function)
    signature = inspect.signature(function)
    known = [name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY and name != "on_progress"]

    @wraps(function)
    def checked(
        src: Path | str, dst: Path | str, *, on_progress: Progress | None = None, **options: Any
    ) -> ImportSummary:
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"its options are {', '.join(known)}"
                raise ConfigError(f"this importer has no option '{name}'; {hint}")
        if not Path(src).exists():
            raise DataError("there is nothing at the source given; name the folder of the data set as it was published")
        converted = {name: _convert(name, value, hints[name]) for name, value in options.items()}
        return function(Path(src), Path(dst), on_progress=on_progress, **converted)

    return checked


def read_rows(path: Path) -> Iterator[Any]:
    """The rows of a JSON list, or of JSON lines (`.jsonl`).

    Raises:
        DataError: the file is missing, or is not what its name says.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
        rows = json.loads(text) if rows is None else rows
    except OSError:
        raise DataError(f"the set has no readable {path.name}; check that its folder is complete") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path.name} is not valid JSON; fetch the set again") from None
    if not isinstance(rows, list):
        raise DataError(f"{path.name} holds no list of rows; fetch the set again")
    return iter(rows)


def text_of(row: Mapping[str, Any], key: str) -> str:
    """The value as stripped text; numbers (some sets answer with them) are spelled out, absence is empty."""
    value = row.get(key)
    return str(value).strip() if isinstance(value, str | int | float) else ""


def answer_type_of(answer: str) -> str:
    """CLOSED for yes and no, else OPEN: the rule where a set does not say."""
    return "CLOSED" if answer.strip().lower() in ("yes", "no") else "OPEN"


def source_inside(root: Path, text: str) -> Path:
    """The file that a row names, under `root`.

    Raises:
        UnusableRowError: the row names a place elsewhere, or a link leads there.
    """
    path = root
    try:
        for part in PurePosixPath(image_key(text)).parts:
            path = path / part
            if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
                raise UnusableRowError(OUTSIDE)
    except (OSError, RuntimeError):  # A name too long for a file, or a loop of links.
        raise UnusableRowError(MISSING) from None
    return path


def is_file(path: Path) -> bool:
    """Whether this is a file that can be looked at; a row may name anything."""
    try:
        return path.is_file()
    except OSError:
        return False


def _convert(name: str, value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if value not in choices:
            raise ConfigError(f"option {name} is '{value}'; choose one of {', '.join(map(str, choices))}")
        return value
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise ConfigError(f"option {name} is '{value}', but must be of type {hint.__name__}") from None
