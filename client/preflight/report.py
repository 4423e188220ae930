"""The findings as a person sees them, and as JSON that can be sent to those who help."""

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from client.preflight.finding import Finding

KIND, VERSION = "mumc-site check", 1
"""Of the JSON; a field that is added keeps the version, any other change raises it."""
WORDS = {"pass": "ok", "warn": "warning", "fail": "FAILED", "skip": "-"}
FOLDER = "DIR"
"""What stands for the site's folder where the report may be sent."""
_PATH = re.compile(r"(?<![\w:/.~-])/(?:[^\s'\",;:()]+)")


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether nothing keeps the site from taking part; no finding at all is no sign of that."""
    return bool(findings) and all(finding.status in ("pass", "warn") for finding in findings)


def to_dict(findings: Sequence[Finding], root: Path) -> dict[str, Any]:
    """The report that may be sent: without what is for the terminal, and without paths outside the site's folder."""
    return {
        "kind": KIND,
        "version": VERSION,
        "fedmumc": metadata.version("fedmumc"),
        "fit": is_fit(findings),
        "checks": [
            {
                "name": finding.name,
                "status": finding.status,
                "what": _sent(finding.what, root),
                "remedy": _sent(finding.remedy, root),
                "cause": finding.cause,
                "numbers": dict(finding.numbers),
            }
            for finding in findings
        ],
    }


def summary(findings: Sequence[Finding]) -> str:
    """The last line: fit or not, and how many of which."""
    count = {status: sum(finding.status == status for finding in findings) for status in WORDS}
    parts = [f"{count['pass']} ok"]
    parts += [f"{count['warn']} warning{'s' if count['warn'] > 1 else ''}"] if count["warn"] else []
    parts += [f"{count['fail']} failed"] if count["fail"] else []
    parts += [f"{count['skip']} not looked at"] if count["skip"] else []
    return f"{'fit to take part' if is_fit(findings) else 'not fit to take part'}: {', '.join(parts)}"


def _sent(text: str, root: Path) -> str:
    return _PATH.sub("(a path)", text.replace(str(root), FOLDER))
