"""From plain values to a frozen dataclass and back; nothing is composed, interpolated or instantiated here."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class ConfigurationError(ValueError):
    """A key is unknown or missing, or a value has the wrong type; the message names it and the nearest key."""


def load(cls: type[T], node: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass `cls` with the values of `node`, nested dataclasses included.

    Args:
        cls: A frozen dataclass whose fields are numbers, strings, booleans, tuples, mappings or dataclasses.
        node: Plain values, as JSON or a composed Hydra node gives them.
        where: The dotted place of `node` in the whole configuration, for messages.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value does not fit its field.
    """
    if not isinstance(node, Mapping):
        raise ConfigurationError(f"{where or cls.__name__} must be a mapping of keys to values, not {_kind(node)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in node:
        if key not in fields:
            raise ConfigurationError(unknown_key(_join(where, str(key)), str(key), fields))
    missing = [_join(where, f.name) for f in fields.values() if f.name not in node and _required(f)]
    if missing:
        raise ConfigurationError(f"missing {', '.join(missing)}; give {'it' if len(missing) == 1 else 'them'} a value")
    return cls(**{key: _convert(hints[key], value, _join(where, key)) for key, value in node.items()})


def dump(instance: Any) -> Any:
    """The plain values of a dataclass (JSON can hold them); `load` reads them back."""
    if dataclasses.is_dataclass(instance) and not isinstance(instance, type):
        return {f.name: dump(getattr(instance, f.name)) for f in dataclasses.fields(instance)}
    if isinstance(instance, Mapping):
        return {str(key): dump(value) for key, value in instance.items()}
    if isinstance(instance, (list, tuple)):
        return [dump(value) for value in instance]
    return instance


def unknown_key(where: str, key: str, known: Iterable[str]) -> str:
    """The message for a key that nobody reads, with the nearest known one."""
    return f"unknown key '{where}'; {nearest(key, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the one that was meant, or all that there are."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known) or 'none'}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return load(typing.cast(type, hint), value, where)
    if origin is Literal:
        return _choice(value, args, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin in (tuple, list):
        return _sequence(origin, args, value, where)
    if origin in (dict, Mapping) or hint in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where} must be a mapping, not {_kind(value)}")
        item = args[1] if args else Any
        return {str(k): _convert(item, v, _join(where, str(k))) for k, v in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigurationError(f"{where} must be {hint.__name__}, not {_kind(value)}: {value!r:.80}")


def _choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigurationError(f"{where} must be one of {', '.join(map(str, choices))}, not {value!r:.80}{hint}")


def _sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{where} must be a list, not {_kind(value)}")
    fixed = origin is tuple and args and args[-1] is not Ellipsis
    if fixed and len(value) != len(args):
        raise ConfigurationError(f"{where} must have {len(args)} values, not {len(value)}")
    hints = args if fixed else [args[0] if args else Any] * len(value)
    return origin(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
