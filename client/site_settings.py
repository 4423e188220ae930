"""The text of `site.yaml` with a part of its policy in it; the rest stays as the engineer wrote it, comments too."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from client.config import RunLimits, read_site_config
from client.errors import SiteError
from mumc_model.data.files import write_atomically

_POLICY = re.compile(r"(?m)^policy:[ \t]*(?:#[^\n]*)?\n((?:[ \t]+[^\n]*(?:\n|\Z)|[ \t]*(?:#[^\n]*)?\n)*)")
_SHOWN = {
    "code": "digests of the run's code that are accepted; only the installed code ever runs",
    "actions": "what may be asked for; query.statistics too lets the card's counts into sums",
    "max_rounds": "of one run",
    "max_steps": "optimiser steps in answer to one order",
    "max_batch": "records in a step",
    "max_image_size": "pixels along a side",
    "max_parameters": "of the model",
    "min_records": "fewest images or questions with which this site takes part",
    "metrics": 'names that may leave, with * and ?; "*" for all',
    "smallest_count": "figures about fewer questions than this stay here",
    "privacy": "required refuses training without differential privacy; or allowed",
    "secure_aggregation": "required sends updates under masks only; or allowed",
    "card": "required trains only with a data card of the data as it is; or optional",
    "min_sites": "fewest sites in a sum",
    "colluding": "so many sites may join forces with the server and learn nothing of this one",
    "hours": 'when orders are followed, as "19:00-07:00"; empty for always',
    "memory_gib": "most main memory for one order; 0 for no limit",
}


_STRICTER = {"card": "required"}
"""What a new site is given though the code's own default, which older sites live under, is looser."""


def usual_limits() -> str:
    """The limits that most sites need to look at, with a word on every line; the others are in `RunLimits`."""
    defaults = {field.name: field.default for field in fields(RunLimits)} | _STRICTER
    lines = [f"    {name}: {_inline(defaults[name])}  # {word}" for name, word in _SHOWN.items()]
    return "\n".join(["  runs:  # what a run may ask of this site", *lines]) + "\n"


def write_limits(root: Path) -> Path:
    """Put the usual limits into the `site.yaml` of a site folder that sets none; its path.

    Raises:
        SiteError: it sets limits already.
    """
    path = root / "site.yaml"
    if read_site_config(root).policy.runs is not None:
        raise SiteError(f"{path} sets limits already; see them with: mumc-site limits {root}")
    write_atomically(path, with_limits(path.read_text(encoding="utf-8")).encode())
    return path


def with_limits(text: str) -> str:
    """Settings without limits, with the usual ones."""
    block = usual_limits()
    return _with_part(text, "runs", block, yaml.safe_load(block)["runs"])


def with_privacy_policy(text: str, policy: Mapping[str, Any]) -> str:
    """The same settings with this `policy.privacy`."""
    plain = yaml.safe_dump({"privacy": dict(policy)}, sort_keys=False, allow_unicode=True)
    return _with_part(text, "privacy", "".join(f"  {line}\n" for line in plain.splitlines()), dict(policy))


def _with_part(text: str, part: str, block: str, value: object) -> str:
    """The text with `policy.<part>` exchanged; where it is laid out in an unusual way, its comments are lost."""
    settings = yaml.safe_load(text) or {}
    settings["policy"] = {**(settings.get("policy") or {}), part: value}
    found = _POLICY.search(text)
    if found:
        old = re.compile(rf"(?m)^  {part}:[^\n]*\n(?:(?:   |[ \t]*\n)[^\n]*\n?)*")
        others = old.sub("", found.group(1)).rstrip() + "\n"
        edited = text[: found.start()] + "policy:\n" + others.lstrip("\n") + block + text[found.end() :]
    else:
        edited = text.rstrip("\n") + "\npolicy:\n" + block
    return edited if _parses_to(edited, settings) else yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _inline(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _parses_to(text: str, expected: object) -> bool:
    try:
        return bool(yaml.safe_load(text) == expected)
    except yaml.YAMLError:
        return False
