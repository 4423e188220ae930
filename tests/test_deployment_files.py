"""The files that set a deployment up: they fit each other, the commands that exist, and what must stay closed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import client.cli
import server.cli

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "docs" / "deployment"
HUB, SITE = "/var/lib/fedmumc/hub", "/var/lib/fedmumc/site"
PROGRAMS = {"mumc-server": server.cli.app, "mumc-site": client.cli.app}
UNITS = ("mumc-server.service", "mumc-site.service")


def check_command(words):
    """Fail where a command, its options or its arguments do not exist."""
    program = typer.main.get_command(PROGRAMS[Path(words[0]).name])
    with program.make_context(words[0], list(words[1:])) as context:
        name, command, rest = program.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context)


def settings(unit):
    """The sections of a unit, each option with its values in order."""
    found, section = {}, None
    for line in (FILES / unit).read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((FILES / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def dockerfile():
    """The image's instructions, in order."""
    text = (FILES / "Dockerfile").read_text()
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def mounts(service):
    """Where a service's volumes are, and whether they may be written to."""
    found = {}
    for volume in service["volumes"]:
        target, _, mode = re.sub(r"^\$\{[^}]*\}", "", volume).partition(":")[2].partition(":")
        found[target] = mode != "ro"
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_unit_as_it_is(unit, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    here = f"{Path(sys.executable).parent}/"
    text = (FILES / unit).read_text()
    assert "/opt/fedmumc/.venv/bin/" in text
    (tmp_path / unit).write_text(text.replace("/opt/fedmumc/.venv/bin/", here))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit in line]) == (0, [])


@pytest.mark.parametrize(("unit", "writes"), [(UNITS[0], HUB), (UNITS[1], f"{SITE}/keys {SITE}/state")])
def test_a_unit_runs_its_command_as_nobody_special_and_writes_into_its_own_folders_alone(unit, writes):
    service = settings(unit)["Service"]
    check_command(shlex.split(service["ExecStart"][0]))
    assert service["User"] == ["fedmumc"]
    assert service["Restart"] == ["on-failure"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["ReadWritePaths"] == [writes]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]


@pytest.mark.parametrize("name", ["server", "site"])
def test_a_service_runs_its_command_without_any_privilege(services, name):
    service = services[name]
    check_command(service["command"])
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_the_server_is_asked_whether_it_is_well_by_its_own_command(services):
    kind, *command = services["server"]["healthcheck"]["test"]
    assert kind == "CMD"
    check_command(command)


def test_only_the_port_of_nginx_is_open(services):
    listens = re.findall(r"listen ([0-9]+) ssl;", (FILES / "nginx.conf").read_text())
    assert services["server"]["ports"] == [f"{port}:{port}" for port in listens]
    assert services["nginx"]["network_mode"] == "service:server"
    assert [name for name, service in services.items() if "ports" in service] == ["server"]


def test_a_site_in_a_container_may_write_keys_and_state_alone(services):
    assert mounts(services["site"]) == {SITE: False, f"{SITE}/keys": True, f"{SITE}/state": True}


def test_every_file_that_nginx_reads_is_in_its_container(services):
    there = mounts(services["nginx"])
    read = re.findall(r"(?:_certificate|_key) (\S+);", (FILES / "nginx.conf").read_text())
    assert len(read) == 3
    assert {str(Path(path).parent) for path in read} == {f"{HUB}/keys"}
    assert there == {"/etc/nginx/nginx.conf": False, f"{HUB}/keys": False}
    assert all(path.exists() for path in (FILES / "nginx.conf", FILES / "Dockerfile"))


def test_compose_builds_the_dockerfile_from_the_root_of_the_repository(services):
    build = services["site"]["build"]
    assert (FILES / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(FILES / "Dockerfile")


def test_the_image_is_one_base_and_the_packages_of_the_project(dockerfile):
    assert {name for name, _ in dockerfile} == {"FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    copied = [word for name, rest in dockerfile if name == "COPY" for word in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {package.split(".")[0] for package in packages} | {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
    } == set(copied)
    allowed = (FILES / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in allowed if line.startswith("!")} == set(copied)
    assert [rest for name, rest in dockerfile if name == "FROM"] == ["python:3.11-slim"]


def test_the_image_runs_as_nobody_special_and_fetches_from_where_pip_does(dockerfile):
    assert [rest for name, rest in dockerfile if name == "USER"] == ["10001:10001"]
    assert not any(word in rest for _, rest in dockerfile for word in ("://", "index", "sudo"))


def test_no_file_brings_a_secret_along():
    for path in FILES.iterdir():
        assert not re.search(r"(?i)(password|secret|token)\s*[:=]\s*\S", path.read_text()), path.name
