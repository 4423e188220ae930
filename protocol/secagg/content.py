"""Frozen values that travel as plain JSON values: written one way, and read strictly."""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_args, get_origin

from protocol.errors import MessageError, VersionError

VERSION = 1
"""Of everything in secure aggregation that travels, is signed or enters a key."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_ITEMS = 256
"""Of a list or an object: no more sites than this take part."""


class Content:
    """Base of the dataclasses that travel; each names its kind, and checks its values when it is made."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with kind and version."""
        values = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, "version": VERSION, **values}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """What `to_dict` wrote, every field checked.

        Raises:
            VersionError: the other side runs another version.
            MessageError: anything else that is not exactly this.
        """
        require(isinstance(values, dict), f"{cls.kind} is an object with named fields, not {type(values).__name__}")
        rest = dict(values)
        kind, version = rest.pop("kind", None), rest.pop("version", None)
        if type(version) is not int or version != VERSION:
            raise VersionError(f"{cls.kind} has version {version!r:.20}, not {VERSION}; install the same fedmumc")
        require(kind == cls.kind, f"{cls.kind} was expected, but {kind!r:.80} came")
        hints = {field.name: field.type for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        _check_names(cls.kind, rest, hints)
        return cls(**{name: _read(f"{cls.kind}.{name}", hints[name], value) for name, value in rest.items()})


def require(condition: bool, message: str) -> None:
    """Return only if the condition holds.

    Raises:
        MessageError: it does not.
    """
    if not condition:
        raise MessageError(message)


def require_name(where: str, name: str) -> None:
    """Return only if this can be the name of a site or a run.

    Raises:
        MessageError: it cannot.
    """
    require(NAME.fullmatch(name) is not None, f"{where} is {name[:80]!r}, which does not match {NAME.pattern}")


def require_names(where: str, names: tuple[str, ...]) -> None:
    """Return only if these are names, sorted, each once.

    Raises:
        MessageError: they are not.
    """
    for name in names:
        require_name(where, name)
    require(list(names) == sorted(set(names)), f"{where} is not sorted and free of repetition")


def require_hex(where: str, text: str, size: int) -> None:
    """Return only if the text is `size` bytes as lower-case hexadecimal digits.

    Raises:
        MessageError: it is not; the text may be a secret, and is not quoted.
    """
    fits = len(text) == 2 * size and re.fullmatch("[0-9a-f]*", text) is not None
    require(fits, f"{where} must be {2 * size} lower-case hexadecimal digits")


def _check_names(kind: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise MessageError(f"unknown field {kind}.{str(name)[:60]}{hint}")
    if missing := sorted(hints.keys() - values.keys()):
        raise MessageError(f"{kind} lacks {', '.join(missing)}")


def _read(where: str, hint: Any, value: Any) -> Any:
    """The value, if it is of the field's type."""
    if hint in (str, int, float):
        require(type(value) is hint, f"{where} must be {hint.__name__}, not {type(value).__name__}")
        return value
    if isinstance(hint, type) and issubclass(hint, Content):
        return hint.from_dict(value)
    shape = list if get_origin(hint) is tuple else dict
    require(type(value) is shape, f"{where} must be a {shape.__name__}, not {type(value).__name__}")
    require(len(value) <= MAX_ITEMS, f"{where} has {len(value)} items, over {MAX_ITEMS}")
    if shape is list:
        return tuple(_read(where, get_args(hint)[0], item) for item in value)
    require(all(type(key) is str for key in value), f"{where} must have texts as keys")
    return {key: _read(where, get_args(hint)[1], item) for key, item in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Content):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
