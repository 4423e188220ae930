"""The site's own figures, `board:` in site.yaml: prices, hours and what a reading takes. Nothing is assumed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from client.board.facts import Costs, Effort, NotMeasured
from configs.loader import ConfigurationError, load

_SHARES = ("relied_upon", "relied_upon_alone")
_PRICES = ("kwh_price", "staff_hour_price")
LONGEST = 120
"""Characters of a name."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the site enters; what it leaves out is printed as not measured."""

    hospital: str = ""
    """What the hospital is called on the page; without it, the site's pseudonym."""
    currency: str = ""
    """As in EUR."""
    kwh_price: float | None = None
    """Of electricity."""
    watts: float | None = None
    """Drawn by the machine at work, for where its counters cannot be read."""
    staff_hour_price: float | None = None
    """Of the people who run the site."""
    staff_hours: float | None = None
    """That they have spent on it."""
    readings: float | None = None
    """Studies read in the time that the page is about, for which the model was there to ask."""
    minutes_a_reading: float | None = None
    """That an answer spares the reader, where it is relied upon."""
    relied_upon: float | None = None
    """Share of the readings, 0 to 1, in which the federated model's answer was relied upon."""
    relied_upon_alone: float | None = None
    """The same share with the local-only model, where the site knows it."""

    def __post_init__(self) -> None:
        """Refuse figures that cannot be, before any is multiplied."""
        for field in fields(self):
            _check(field.name, getattr(self, field.name))
        priced = [name for name in _PRICES if getattr(self, name) is not None]
        if priced and not self.currency:
            raise ConfigurationError(f"board.{priced[0]} has no currency; add one beside it, as in currency: EUR")


def _check(name: str, value: object) -> None:
    if isinstance(value, str) and (len(value) > LONGEST or not value.isprintable()):
        raise ConfigurationError(
            f"board.{name} has {len(value)} characters or some that cannot be printed; write up to {LONGEST} on a line"
        )
    if isinstance(value, float) and not 0 <= value < math.inf:
        raise ConfigurationError(f"board.{name} is {value:g}; give 0 or more, or leave it out")
    if name in _SHARES and isinstance(value, float) and value > 1:
        raise ConfigurationError(f"board.{name} is {value:g} and means a share; write 40 % as 0.4")


def read_prices(node: Mapping[str, Any] | None) -> Prices:
    """The site's figures from the `board:` part of its settings; all left out where there is none.

    Raises:
        ConfigurationError: a key is unknown, or a value cannot be.
    """
    return load(Prices, node or {}, "board")


def prices_file(path: Path) -> Prices:
    """The figures in the `board:` part of a YAML file, such as a site.yaml.

    Raises:
        ConfigurationError: it is missing, has no such part, or a value in it cannot be.
    """
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not YAML text"
        raise ConfigurationError(f"{path} cannot be read: {reason}; give a file with a part called board:") from None
    if not isinstance(node, Mapping) or "board" not in node:
        raise ConfigurationError(f"{path} has no part called board:; docs/board.md shows one")
    return read_prices(node["board"])


def costs(prices: Prices, effort: Effort) -> Costs:
    """Money and minutes; each needs all of its figures."""
    electricity = _product("cost of electricity", (effort.kwh, prices.kwh_price), ("", "kwh_price"))
    staff = _product(
        "cost of staff", (prices.staff_hours, prices.staff_hour_price), ("staff_hours", "staff_hour_price")
    )
    total: float | NotMeasured
    if isinstance(electricity, NotMeasured) or isinstance(staff, NotMeasured):
        total = NotMeasured("cost in all", "a part of it was not measured")
    else:
        total = electricity + staff
    minutes, how = _minutes(prices)
    return Costs(
        currency=prices.currency,
        electricity=electricity,
        staff=staff,
        total=total,
        minutes_saved=minutes,
        minutes_by=how,
    )


def _minutes(prices: Prices) -> tuple[float | NotMeasured, str]:
    names = ("readings", "minutes_a_reading", "relied_upon")
    values = (prices.readings, prices.minutes_a_reading, prices.relied_upon)
    minutes = _product("reading minutes saved", values, names)
    if isinstance(minutes, NotMeasured) or prices.readings is None or prices.minutes_a_reading is None:
        return minutes, ""
    how = f"{prices.readings:,g} readings x {prices.minutes_a_reading:g} min"
    with_it = f"{100 * (prices.relied_upon or 0):g} %"
    if prices.relied_upon_alone is None:
        return minutes, f"{how} x {with_it} relied upon; what a local-only model would save was not entered"
    alone = prices.readings * prices.minutes_a_reading * prices.relied_upon_alone
    without = f"{100 * prices.relied_upon_alone:g} %"
    return minutes - alone, f"{how} x ({with_it} relied upon less {without} without joining)"


def _product(what: str, values: tuple[float | NotMeasured | None, ...], names: tuple[str, ...]) -> float | NotMeasured:
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    if missing:
        return NotMeasured(what, f"not entered: {', '.join(missing)}")
    if any(isinstance(value, NotMeasured) for value in values):
        return NotMeasured(what, "what it is the price of was not measured")
    return math.prod(value for value in values if isinstance(value, float))
