"""What the pages tell people to type, and where they point, has to exist."""

import re
import shlex
from pathlib import Path

import pytest

from configs.compose import compose
from configs.loader import load
from server.config import RunConfig
from simulations.config import SimulationConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TYPES = {"mumc-sim run": ("simulation", SimulationConfig), "mumc-server config": ("run", RunConfig)}


def commands():
    """Every line of a page that starts with one of the commands."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            for command in TYPES:
                if line.strip().startswith(command + " "):
                    yield pytest.param(
                        command, shlex.split(line, comments=True)[2:], id=f"{page.stem}: {line.strip():.60}"
                    )


@pytest.mark.parametrize(("command", "words"), list(commands()))
def test_a_command_on_a_page_is_a_run_that_can_be_configured(command, words):
    name, cls = TYPES[command]
    load(cls, compose(name, [word for word in words if not word.startswith("-")]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_on_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_of_the_readme_are_targets_of_the_makefile(target):
    assert f"    make {target}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
