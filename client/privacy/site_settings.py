"""The text of site.yaml with a privacy policy in it."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

_POLICY_BLOCK = re.compile(r"(?m)^policy:[^\n]*\n?(?:[ \t][^\n]*\n?|\n)*")


def with_privacy_policy(text: str, policy: Mapping[str, Any]) -> str:
    """The same settings with this `policy.privacy`. Comments stay where the block can be exchanged as text."""
    settings = yaml.safe_load(text)
    settings["policy"] = {**(settings.get("policy") or {}), "privacy": dict(policy)}
    edited = _POLICY_BLOCK.sub("", text).rstrip("\n") + "\n" + _dump({"policy": settings["policy"]})
    return edited if _parses_to(edited, settings) else _dump(settings)


def _dump(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def _parses_to(text: str, expected: object) -> bool:
    try:
        return bool(yaml.safe_load(text) == expected)
    except yaml.YAMLError:
        return False
