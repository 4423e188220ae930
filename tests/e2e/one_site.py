"""A federation of one hospital, set up by its people's commands; what network lies between, each test says."""

from types import SimpleNamespace

from mumc_model.data.phantom import PhantomConfig, write_hospitals
from protocol.flower import free_port
from tests.e2e.deployment import BIN, Started, call, wait_for

ENV = "/usr/bin/env"
"""Stands before a command, with settings of its environment."""
SITE = "hospital-1"


def found(place, address, *, port=0, host="127.0.0.1", sites="sites", plant=lambda _: None):
    """The folders of a federation that sites dial at `address`, and of its one site, which has joined.

    Args:
        place: Where they are made.
        address: HOST:PORT in the join file.
        port: That the SuperLink listens on; 0 for that of the address.
        host: Interface that it listens on.
        sites: Name of the folder that the site's lies in.
        plant: Changes the site's data before anybody sees it.
    """
    hub = place / "hub"
    counts = {"images": 24, "train_questions": 24, "val_questions": 10, "test_questions": 12}
    (site,) = write_hospitals(PhantomConfig(hospitals=1, image_size=64, **counts), place / sites, 0)
    plant(site)
    call(
        *("mumc-server", "init", hub, "--name", "lung", "--address", address),
        *("--port", port, "--health-port", free_port()),
    )
    change(hub / "federation.yaml", '"127.0.0.1"', f'"{host}"')
    call("mumc-site", "init", site, "--units", 30)
    change(site / "site.yaml", "secure_aggregation: required", "secure_aggregation: allowed")
    call("mumc-site", "card", site)
    call("mumc-server", "enroll", hub, site / f"enrolment-{SITE}.json", "--yes")
    call("mumc-site", "join", site, hub / "sites" / f"{SITE}.join.json", "--yes")
    return SimpleNamespace(place=place, hub=hub, site=site)


def change(file, old, new):
    """Put one setting in another's place."""
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {old!r} {text.count(old)} times"
    file.write_text(text.replace(old, new))


def start_server(federation, *before):
    """The federation's server at work; `before` stands before the command, as `env NAME=VALUE` does."""
    server = Started(
        federation.place / "server.log", *(*before, BIN / "mumc-server"), *("start", federation.hub, "--supervise")
    )
    wait_for(lambda: f"registered site\n{server.text}", lambda: f"{SITE} may connect" in server.text)
    return server


def rehearse(federation, *before):
    """What `mumc-site rehearse` says, once the site has rehearsed with its server."""
    return call(*(*before, BIN / "mumc-site"), *("rehearse", federation.site, "--wait", 500), timeout=600)
