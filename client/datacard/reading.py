"""A card out of its JSON, so that what was looked at is what is approved, whatever the folder holds by then."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from client.datacard.facts import DataCard, NotMeasured
from client.datacard.stamp import read_json
from mumc_model.errors import DataError


def read_card(root: Path) -> DataCard | None:
    """The card of the site in this folder, or None where there is none.

    Raises:
        DataError: it was changed by hand, and means nothing any more.
    """
    plain = read_json(root)
    if plain is None:
        return None
    try:
        card = _read(DataCard, plain, "card")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(f"the data card is not as it was written; make it again with: mumc-site card {root}") from None
    assert isinstance(card, DataCard)
    return card


def _read(kind: Any, plain: Any, name: str) -> Any:
    origin = get_origin(kind)
    if origin is UnionType:
        return _one_of(get_args(kind), plain, name)
    if origin is Literal:
        return _one_value(get_args(kind), plain)
    if origin is tuple:
        return tuple(_read(get_args(kind)[0], member, name) for member in _checked(list, plain))
    if origin is Mapping:
        member = get_args(kind)[1]
        return {_checked(str, key): _read(member, value, key) for key, value in _checked(dict, plain).items()}
    if kind in (str, int):
        return _checked(kind, plain)
    if kind is float:
        return float(plain)
    types = get_type_hints(kind)
    return kind(**{part.name: _read(types[part.name], plain[part.name], part.name) for part in fields(kind)})


def _one_of(kinds: tuple[Any, ...], plain: Any, name: str) -> Any:
    if isinstance(plain, dict) and plain.keys() == {"not_measured"}:
        return NotMeasured(name, _checked(str, plain["not_measured"]))
    return _read(next(kind for kind in kinds if kind is not NotMeasured), plain, name)


def _one_value(allowed: tuple[Any, ...], plain: Any) -> Any:
    if plain not in allowed:
        raise ValueError("not a value of ours")
    return plain


def _checked(kind: type, plain: Any) -> Any:
    if type(plain) is not kind:
        raise TypeError("not of the kind that was written")
    return plain
