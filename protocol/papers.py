"""Small signed files that people send to each other: strict JSON of a frozen dataclass, and its fields' checks."""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from protocol.errors import EnrolmentError, VersionError

VERSION = 1
"""Of the files; both sides must speak the same one."""
MAX_CHARS = 1 << 19
"""Room for some two thousand peers."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"[0-9a-f]{128}")
PROOF = re.compile(r"([0-9a-f]{2}){60,120}")
"""An ECDSA signature in DER, whose length varies."""


class Paper(Protocol):
    """A frozen dataclass with a kind, whose fields are texts, whole numbers and mappings of texts."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


P = TypeVar("P", bound=Paper)


def is_day(value: Any) -> bool:
    """Whether it is a day of the calendar, in the one spelling that a day has."""
    try:
        return bool(date.fromisoformat(value).isoformat() == value)
    except (TypeError, ValueError):
        return False


def to_json(paper: Paper) -> str:
    """The text of the file: readable, sorted, with kind and version."""
    values = {"kind": paper.kind, "version": VERSION, **_plain(paper)}
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def from_json(cls: type[P], text: str) -> P:
    """The paper that `to_json` wrote, every field checked. Signatures are another matter: see `protocol.enrolment`.

    Raises:
        VersionError: the other side runs another version.
        EnrolmentError: anything else that is not exactly such a file.
    """
    what = f"{cls.kind} file"
    if len(text) > MAX_CHARS:
        raise EnrolmentError(f"the {what} has {len(text):,} characters, over the limit of {MAX_CHARS:,}")
    try:
        values = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise EnrolmentError(f"this is no {what}: it is not JSON; send the file itself, unchanged") from None
    kind, version = (values.pop(key, None) if isinstance(values, dict) else None for key in ("kind", "version"))
    if kind != cls.kind:
        raise EnrolmentError(f"this is no {what}, but {_shown(kind)}; give the right file")
    if type(version) is not int or version != VERSION:
        raise VersionError(
            f"the {what} has version {_shown(version)}, this side speaks {VERSION}; install the same fedmumc"
        )
    return cls(**_fields(cls, values))


def read_paper(cls: type[P], path: Path) -> P:
    """The paper in a file that somebody sent.

    Raises:
        EnrolmentError: the file cannot be read, or is no such paper; VersionError: it is of another version.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CHARS + 1)
        return from_json(cls, content.decode("utf-8"))
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read: {error.strerror}; give the {cls.kind} file") from None
    except UnicodeDecodeError:
        raise EnrolmentError(f"{path} is no {cls.kind} file: it is not text; send the file itself, unchanged") from None


def payload(paper: Paper, *proofs: str) -> dict[str, Any]:
    """What is signed: every field but the proofs, with the file's version."""
    return {"version": VERSION, **{name: value for name, value in _plain(paper).items() if name not in proofs}}


def require(condition: bool, message: str) -> None:
    """Refuse a file unless the condition holds."""
    if not condition:
        raise EnrolmentError(message)


def require_matching(pattern: re.Pattern[str], where: str, value: str) -> None:
    """Refuse a text of another form."""
    require(pattern.fullmatch(value) is not None, f"{where} is {_shown(value)}, which does not match {pattern.pattern}")


def require_time(where: str, value: str) -> None:
    """Refuse what is no moment with a zone, as 2027-01-31T12:00:00+00:00."""
    try:
        zone = datetime.fromisoformat(value).utcoffset()
    except ValueError:
        zone = None
    require(zone is not None and len(value) <= 40, f"{where} is {_shown(value)}, not a moment with its time zone")


def _plain(paper: Paper) -> dict[str, Any]:
    values = {name: getattr(paper, name) for name in _types(type(paper))}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _types(cls: type[Paper]) -> dict[str, Any]:
    return {field.name: field.type for field in dataclasses.fields(cls)}


def _fields(cls: type[Paper], values: dict[str, Any]) -> dict[str, Any]:
    types = _types(cls)
    for name in values:
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise EnrolmentError(f"unknown field {_shown(name)} in the {cls.kind} file{hint}")
    if missing := sorted(types.keys() - values.keys()):
        raise EnrolmentError(f"the {cls.kind} file lacks {', '.join(missing)}")
    for name, value in values.items():
        _check_type(f"{cls.kind}.{name}", types[name], value)
    return values


def _check_type(where: str, hint: Any, value: Any) -> None:
    if hint in (str, int):
        require(type(value) is hint, f"{where} must be {hint.__name__}, not {type(value).__name__}")
    else:
        good = isinstance(value, dict) and all(type(item) is str for item in value.values())
        require(good, f"{where} must be an object that holds texts only")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _shown(value: Any) -> str:
    return repr(value)[:80]
