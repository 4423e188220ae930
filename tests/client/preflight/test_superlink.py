"""The server's answers, from Flower's real SuperLink with TLS and node authentication."""

import time

import pytest

from client.preflight.case import Case
from client.preflight.network import clock, server, tls
from client.preflight.run import read_run
from client.preflight.wire import knock
from protocol.flower import Keeper, free_port
from protocol.node_keys import new_node_key
from server.errors import ControlError
from server.start import Reception, control, programs
from tests.federation import enrol_copy, found, take_in


@pytest.mark.e2e
def test_a_superlink_tells_an_enrolled_key_from_another_and_nothing_changes_there(untouched, tmp_path, tiny_run):
    port, health = free_port(), free_port()
    home = found(tmp_path, address=f"localhost:{port}", port=port, health_port=health)
    folder = enrol_copy(home, untouched, tmp_path / "north")
    take_in(home, folder)
    superlink = Keeper(programs(home, home.config())[:1], restart=False, say=lambda line: None)
    with superlink as keeper, control(home) as link:
        case = Case(folder, read_run(tiny_run))
        assert wait_for(keeper, link) == []
        assert tls(case).status == "pass"
        assert clock(case).status == "pass"
        assert server(case).what == "it does not know the node key of north"
        Reception(home, link, say=lambda line: None).step()
        before = link.nodes()
        assert server(case).what == "it knows north by its node key"
        assert knock(case.route, case.join.ca, new_node_key()).status_code == 412
        assert link.nodes() == before
        assert [(node.status, node.since) for node in before] == [("registered", "")]


def wait_for(keeper, link):
    """The nodes that the SuperLink knows, once it is up."""
    deadline = time.monotonic() + 120
    while True:
        keeper.look()
        try:
            return link.nodes()
        except ControlError:
            assert time.monotonic() < deadline, "the SuperLink is not up"
            time.sleep(0.2)
