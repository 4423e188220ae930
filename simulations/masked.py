"""What masked arms need beside the others: hospitals that have joined a throwaway federation, each with its own keys.

Masked arms run at copies of the hospitals, since a site that has joined follows no unsigned order.
"""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from client.joining import check_answer
from client.keys import SiteKeys
from mumc_model.data.records import read_site
from protocol.enrolment import Join, enrolment_of
from protocol.papers import read_paper
from server.home import FederationFile, Home
from server.joining import admit, create, publish
from server.roster import SiteRegister
from server.seal import write_nodes

DAYS = 30
"""Of a certificate that nobody shows."""


def copied(hospitals: Sequence[Path], out: Path) -> list[Path]:
    """Copies of the hospitals under `out`, without what earlier arms left in them."""
    return [Path(shutil.copytree(path, out / path.name, ignore=shutil.ignore_patterns("state"))) for path in hospitals]


def join_all(sites: Mapping[int, Path], folder: Path) -> Home:
    """A new federation in the folder, which all these sites have joined; by node. Captions are their public weights."""
    home = create(folder, FederationFile(name="simulation", address="localhost:9092"), DAYS)
    names = {node: path.name for node, path in sites.items()}
    for path in sites.values():
        keys, now = SiteKeys(path), datetime.now(UTC).replace(microsecond=0).isoformat()
        keys.make()
        units = max(1, len(read_site(path).captions))
        admitted = admit(home, enrolment_of(path.name, keys.node_key(), keys.signing(), units=units, created=now))
        publish(home, admitted)
    for path in sites.values():
        check_answer(path, read_paper(Join, home.join_file(path.name)), replace=False).take_in()
    write_nodes(home, {name: node for node, name in names.items()})
    assert len(SiteRegister.read(home).active) == len(sites), "every hospital has a name of its own"
    return home
