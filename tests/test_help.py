"""What `--help` says of the four programs: no command, argument or option stands there without a word."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from typer.main import get_command

import client.cli
import client.privacy.cli
import server.cli
import simulations.cli

PROGRAMS = {
    "mumc-privacy": client.privacy.cli.app,
    "mumc-server": server.cli.app,
    "mumc-sim": simulations.cli.app,
    "mumc-site": client.cli.app,
}

SLOW = {"torch", "flwr", "hydra", "omegaconf", "scipy", "matplotlib", "PIL", "httpx"}
"""Takes long to import, and nothing of it is needed to say what a program can do."""


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_argument_and_option_has_its_help(program):
    found = dict(commands(get_command(PROGRAMS[program]), program))
    assert len(found) > 2
    silent = [
        f"{name}: {parameter.name}"
        for name, command in found.items()
        for parameter in command.params
        if not getattr(parameter, "hidden", False) and not parameter.help
    ]
    assert silent == []
    assert [name for name, command in found.items() if not command.help] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_says_so_without_importing_what_takes_long(program):
    module = {"mumc-privacy": "client.privacy.cli", "mumc-server": "server.cli", "mumc-sim": "simulations.cli"}
    code = f"""
import sys
from {module.get(program, "client.cli")} import main
sys.argv = ["{program}", "--help"]
try:
    main()
finally:
    print("imported:", *{{name.partition(".")[0] for name in sys.modules}} & {SLOW})
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--help" in said
    assert said.splitlines()[-1] == "imported:"
