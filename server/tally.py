"""What came of the sites that were asked: who reported what, who did not and why."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.errors import ProtocolError
from protocol.messages import EPSILON, MAX_REASON, Report, one_line


def quoted(text: str) -> str:
    """What a site says, so that in a line of several sites nobody takes it for the server's or another site's."""
    return '"{}"'.format(one_line(text)[: MAX_REASON - 2].replace('"', "'")) if text else ""


class RefusedError(ProtocolError):
    """The site itself, or Flower in its place, says why there is no report."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(kw_only=True)
class Tally:
    """What came of each site that was asked."""

    reports: dict[str, Report] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """A code for each site that did not report."""
    reasons: dict[str, str] = field(default_factory=dict)
    """And the reason in words, where there is one."""
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def examples(self) -> int:
        """Examples behind the reports."""
        return sum(report.examples for report in self.reports.values())

    def refuse(self, site: str, error: ProtocolError) -> None:
        """Note why a site does not report."""
        self.refused[site] = error.code
        if reason := one_line(str(error)):
            self.reasons[site] = reason

    def add(self, again: "Tally", asked: Iterable[str]) -> None:
        """Take up what came of sites that were asked once more: it stands in the place of what came at first."""
        for site in asked:
            self.refused.pop(site, None)
            self.reasons.pop(site, None)
        self.reports |= again.reports
        self.refused |= again.refused
        self.reasons |= again.reasons
        self.bytes_up += again.bytes_up
        self.bytes_down += again.bytes_down

    def means(self) -> dict[str, float]:
        """Each metric's mean over the sites that report it, weighted by examples; the order of arrival is not seen."""
        names = sorted({name for report in self.reports.values() for name in report.metrics} - {EPSILON})
        return {name: self._mean(name) for name in names}

    def epsilon(self) -> dict[str, float]:
        """What each site has spent, where it trained under differential privacy."""
        return {site: r.metrics[EPSILON] for site, r in sorted(self.reports.items()) if EPSILON in r.metrics}

    def _mean(self, name: str) -> float:
        having = [report for report in self.reports.values() if name in report.metrics]
        total = math.fsum(report.metrics[name] * report.examples for report in having)
        return total / sum(report.examples for report in having)
