"""How the page writes its numbers; what was not measured says so."""

import math

from client.board.facts import Gap, NotMeasured, Share

MINUS = "\N{MINUS SIGN}"


def share_text(share: Share | NotMeasured) -> str:
    """`66.1 (64.0 to 68.2)`: percent right with its interval."""
    if isinstance(share, NotMeasured):
        return str(share)
    return f"{100 * share.mean:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def gap_text(gap: Gap | NotMeasured) -> str:
    """`+6.2 (+3.1 to +9.4)`: points of percent with their interval."""
    if isinstance(gap, NotMeasured):
        return str(gap)
    return f"{_signed(gap.mean)} ({_signed(gap.low)} to {_signed(gap.high)})"


def count_text(count: int | NotMeasured) -> str:
    """`1,234`."""
    return str(count) if isinstance(count, NotMeasured) else f"{count:,}"


def bytes_text(count: int | NotMeasured) -> str:
    """Bytes as MB or GB of a million or a thousand million bytes."""
    if isinstance(count, NotMeasured):
        return str(count)
    if count < 1e9:
        return f"{count / 1e6:,.{1 if count >= 1e5 or not count else 3}f} MB"
    return f"{count / 1e9:,.1f} GB"


def hours_text(hours: float | NotMeasured) -> str:
    """`3.4 h`, `12 min` or `40 s`."""
    if isinstance(hours, NotMeasured):
        return str(hours)
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def energy_text(kwh: float | NotMeasured) -> str:
    """`1.2 kWh`, or Wh below a hundredth of that."""
    if isinstance(kwh, NotMeasured):
        return str(kwh)
    return f"{kwh:,.2f} kWh" if kwh >= 0.01 or not kwh else f"{1000 * kwh:.2g} Wh"


def money_text(amount: float | NotMeasured, currency: str) -> str:
    """`12.40 EUR`."""
    if isinstance(amount, NotMeasured):
        return str(amount)
    return f"less than 0.01 {currency}" if 0 < amount < 0.01 else f"{amount:,.2f} {currency}"


def minutes_text(minutes: float | NotMeasured) -> str:
    """`1,440 min (24.0 h)`."""
    if isinstance(minutes, NotMeasured):
        return str(minutes)
    return f"{minutes:,.0f} min ({minutes / 60:,.1f} h)".replace("-", MINUS)


def epsilon_text(epsilon: float | NotMeasured) -> str:
    """Rounded up, so that never less is said than was spent."""
    if isinstance(epsilon, NotMeasured):
        return str(epsilon)
    return "no bound" if math.isinf(epsilon) else f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"


def chance_text(chance: float | NotMeasured) -> str:
    """`1 in 1,000,000`, rounded so that no smaller chance is said than there is."""
    return str(chance) if isinstance(chance, NotMeasured) else f"1 in {math.floor(1 / chance + 1e-6):,}"


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", MINUS)
