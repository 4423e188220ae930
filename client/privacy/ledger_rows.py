"""What a ledger's rows say: a charge, and what became of it."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from client.privacy.errors import LedgerError, PrivacyError
from client.privacy.event import Event

Purpose = Literal["pretrain", "finetune", "metrics", "trial"]
CODE = ("client/privacy", "mumc_model")
"""Folders whose source decides whether a charge is true."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One piece of work that spends budget, bound to our own run, round and attempt."""

    run: str
    round: int
    attempt: int
    purpose: Purpose
    unit: Literal["patient", "record"]
    event: Event
    """Its steps are those reserved."""
    clipping_norm: float
    expected_batch: float
    """Units a step takes in expectation: public, and what the noised sum is divided by."""
    operator: str
    """Who asked for it: a person or a server."""

    def __post_init__(self) -> None:
        """Refuse what no row could say."""
        for name in ("clipping_norm", "expected_batch"):
            if not 0 < getattr(self, name) < math.inf:
                raise LedgerError(f"a charge's {name} is {getattr(self, name)}; choose a finite number above 0")
        if self.event.steps < 1:
            raise LedgerError("a charge of no steps cannot be reserved; ask for at least one")
        if self.purpose not in get_args(Purpose) or self.unit not in ("patient", "record"):
            raise LedgerError(f"a charge for {self.purpose!r} of each {self.unit!r} is not known here")

    def to_dict(self) -> Row:
        """Plain values."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"event": self.event.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Charge":
        """The charge that `to_dict` wrote, other keys left aside.

        Raises:
            LedgerError: a field is missing or impossible.
        """
        try:
            fields = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            return cls(**fields | {"event": Event.from_dict(fields["event"])})
        except LedgerError:
            raise
        except (PrivacyError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"the row is not a charge: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A charge as the ledger holds it."""

    id: str
    """The hash of its row."""
    time: str
    charge: Charge
    epsilon_after: float
    """Of all charges up to this one, by the RDP filter, as its row says."""
    steps_done: int | None = None
    """None until the work was reconciled: it then counts in full."""
    code: str = ""
    """`code_digest` of the source that was to do the work, as its row says."""

    @property
    def event(self) -> Event:
        """What of it counts."""
        steps = self.charge.event.steps if self.steps_done is None else self.steps_done
        return dataclasses.replace(self.charge.event, steps=steps)


def row(kind: str, **fields: Any) -> Row:
    """A row's body, with the time."""
    return {"kind": kind, "time": now(), **fields}


def now() -> str:
    """This moment in ISO form, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over the names and texts of the source files on which a charge's truth depends."""
    base = Path(__file__).resolve().parents[2]
    found = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (base / folder).rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(base).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()
