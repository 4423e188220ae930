"""What one check found, in words for the engineer at the site, with what helps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    status: Status
    """`warn` does not keep the site from taking part; `skip` could not be looked at, because another check failed."""
    what: str
    """What was found, with its numbers. It may be sent to those who help, so it names no patient and counts none."""
    remedy: str = ""
    here: str = ""
    """What else the engineer is told, on the terminal alone."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """For programs; the unit is in the name."""
    name: str = ""
    """Of the check."""
    cause: str = ""
    """The failed check that kept this one from being made."""


def passed(what: str, *, here: str = "", numbers: Mapping[str, float] | None = None) -> Finding:
    """A finding that all is well."""
    return Finding(status="pass", what=what, here=here, numbers=numbers or {})


def warned(what: str, remedy: str, *, here: str = "", numbers: Mapping[str, float] | None = None) -> Finding:
    """A finding that the site can take part with, though something should be seen to."""
    return Finding(status="warn", what=what, remedy=remedy, here=here, numbers=numbers or {})


def failed(what: str, remedy: str, *, here: str = "", numbers: Mapping[str, float] | None = None) -> Finding:
    """A finding that keeps the site from taking part."""
    return Finding(status="fail", what=what, remedy=remedy, here=here, numbers=numbers or {})


def skipped(cause: str) -> Finding:
    """What stands for a check that needs what the failed check `cause` did not find."""
    return Finding(status="skip", what=f"cannot be looked at before {cause} is in order", cause=cause)


def of_error(error: Exception) -> Finding:
    """The finding of an error of ours, whose text ends in its remedy."""
    what, _, remedy = str(error).partition("; ")
    return failed(what, remedy)


def size(count: float) -> str:
    """So many bytes, as a person reads them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
