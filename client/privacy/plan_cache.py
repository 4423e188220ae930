"""Plans that were computed before, on this machine's disk: for speed alone, and never read when anything is charged."""

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from client.privacy.plan import Plan, PlanRequest

FORMAT = 1
"""Raise it when a plan means something else than before."""


def folder() -> Path:
    """Where plans are kept, whether it is there or not."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fedmumc" / "plans"


def find(request: PlanRequest) -> Plan | None:
    """The plan of the same request by the same accountant; None where there is none or its file cannot be used."""
    try:
        kept = json.loads(_path(request).read_text(encoding="utf-8"))
        return Plan.from_dict(kept["plan"]) if kept["key"] == _key(request) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep(request: PlanRequest, plan: Plan) -> None:
    """Write the plan for the next time; a disk that refuses it costs only that time."""
    path = _path(request)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"key": _key(request), "plan": plan.to_dict()}, file)
        os.replace(name, path)


def _path(request: PlanRequest) -> Path:
    return folder() / f"{hashlib.sha256(_key(request).encode()).hexdigest()}.json"


def _key(request: PlanRequest) -> str:
    """Everything that the plan depends on: its numbers, the accountant's version and what a plan means."""
    facts = {"format": FORMAT, "dp-accounting": version("dp-accounting"), "request": asdict(request)}
    return json.dumps(facts, sort_keys=True)
