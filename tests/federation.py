"""A federation's folder and its sites, with real keys: enrolled alone, or joined with data, limits and nodes."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from client.joining import check_answer, prepare
from protocol.enrolment import Join
from protocol.papers import read_paper
from server.home import FederationFile, Home
from server.joining import admit, create, publish
from server.seal import write_nodes

LIMITS = {"secure_aggregation": "allowed", "min_records": 1}
"""What a site allows unless a test says otherwise."""


def found(place: Path, *names: str, **settings: object) -> Home:
    """The server's folder, and beside it those of the sites that it has enrolled."""
    settings = {"name": "lung", "address": "localhost:9092"} | settings
    home = create(place / "hub", FederationFile(**settings), 30)
    for name in names:
        enrol(home, place / name)
    return home


def enrol(home: Home, root: Path, units: int = 10) -> None:
    """Enrol the site of that folder, which is made where there is none."""
    _, enrolment = prepare(root, root.name, units)
    publish(home, admit(home, enrolment))


def enrol_copy(home: Home, data: Path, root: Path, units: int = 10) -> Path:
    """Enrol a copy of a site's data under the name of its folder."""
    shutil.copytree(data, root)
    (root / "site.yaml").write_text(f"name: {root.name}\ndevice: cpu\n")
    enrol(home, root, units)
    return root


def take_in(home: Home, root: Path) -> None:
    """Let the site pin the server's newest answer."""
    check_answer(root, read_paper(Join, home.join_file(root.name)), replace=False).take_in()


def join(place: Path, data: Path, nodes: Mapping[str, int], units: Mapping[str, int], **settings: object) -> Home:
    """The server's folder, and beside it copies of the data as sites that have joined and set limits."""
    home = found(place, **settings)
    for name in nodes:
        enrol_copy(home, data, place / name, units[name])
    for name in nodes:
        take_in(home, place / name)
        limit(place / name, **LIMITS)
    write_nodes(home, nodes)
    return home


def limit(root: Path, **limits: object) -> None:
    """Give the site these limits and no others."""
    path = root / "site.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(settings | {"policy": (settings.get("policy") or {}) | {"runs": limits}}))
