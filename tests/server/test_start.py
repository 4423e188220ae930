"""The server's programs, and the register of sites as the SuperLink knows it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from protocol.errors import ExpiredError, NotYetValidError
from server import start
from server.home import HOME, FederationFile
from server.joining import revoke
from server.rehearsal import Rehearsals
from server.roster import SiteRegister
from server.seal import read_nodes
from server.start import Reception, check_certificate, local_address, programs
from tests.federation import enrol, found
from tests.server.link import Link


@pytest.fixture
def home(tmp_path):
    return found(tmp_path, "north", "south")


def test_the_superlink_shows_the_federation_s_certificate_and_lets_enrolled_sites_in_alone(home):
    link, executor = programs(home, home.config())
    line = link.line()
    for part in (
        "--host 127.0.0.1 --port 9092",
        f"--ssl-ca-certfile {home.ca_cert} --ssl-certfile {home.server_cert} --ssl-keyfile {home.server_key}",
        "--enable-supernode-auth",
        f"--database {home.database}",
        f"--isolation process --superexec-auth-secret-file {home.superexec_secret}",
        "--health-server-address 127.0.0.1:9093",
        "--disable-runtime-dependency-installation",
    ):
        assert part in line
    assert "--insecure" not in line + executor.line()
    assert f"--runtime-api-address 127.0.0.1:9092 --root-certificates {home.ca_cert}" in executor.line()
    assert executor.environment[HOME] == str(home.root)
    assert executor.environment["FLWR_HOME"].startswith(str(home.root))


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:9092"), ("0.0.0.0", "127.0.0.1:9092"), ("192.0.2.7", "192.0.2.7:9092")],
)
def test_programs_on_this_machine_dial_an_interface_that_the_superlink_has(host, address):
    assert local_address(FederationFile(name="lung", address="hub.example.org:9092", host=host)) == address


@pytest.mark.parametrize(("year", "error"), [(2020, NotYetValidError), (2040, ExpiredError)])
def test_a_certificate_that_sites_would_not_accept_is_named_before_anything_starts(home, monkeypatch, year, error):
    check_certificate(home)
    monkeypatch.setattr(start, "now_utc", lambda: datetime(year, 1, 1, tzinfo=UTC))
    with pytest.raises(error, match=r"CA certificate fedmumc CA of lung .* this machine's clock says 20"):
        check_certificate(home)


def test_enrolled_sites_are_registered_once_and_revoked_ones_shut_out(home, tmp_path):
    link, said = Link(), []
    reception = Reception(home, link, said.append)
    reception.step()
    nodes = read_nodes(home)
    assert nodes.keys() == {"north", "south"}
    assert said == ["north may connect", "south may connect"]
    asked = link.asked
    reception.step()
    assert link.asked == asked, "nobody is asked while the register stays as it is"
    revoke(home, "north", "laptop stolen")
    enrol(home, tmp_path / "west")
    reception.step()
    assert read_nodes(home).keys() == {"south", "west"}
    assert said[2:] == ["west may connect", "north is shut out"]
    statuses = {node.node_id: node.status for node in link.known}
    assert statuses[nodes["north"]] == "unregistered"
    assert statuses[nodes["south"]] == "registered"


def test_a_restarted_server_finds_its_nodes_again(home):
    link = Link()
    Reception(home, link, lambda line: None).step()
    before, said = read_nodes(home), []
    Reception(home, link, said.append).step()
    assert (read_nodes(home), said) == (before, [])


def test_a_superlink_that_is_away_is_asked_later_and_mentioned_once(home):
    link, said = Link(away=True), []
    reception = Reception(home, link, said.append)
    for _ in range(2 * start.PATIENCE):
        reception.step()
    assert said == ["the SuperLink does not answer; state/superlink.log says more"]
    link.away = False
    reception.step()
    assert read_nodes(home).keys() == {"north", "south"}


def test_a_site_rehearses_once_when_it_is_first_online(home, tmp_path, monkeypatch):
    monkeypatch.setattr("server.rehearsal.EVERY_S", 0.0)
    monkeypatch.setattr("server.submit.installed_bundle", lambda: b"")
    link, said = Link(), []
    reception, rehearsals = Reception(home, link, lambda line: None), Rehearsals(home, link, said.append)
    reception.step()
    rehearsals.step()
    assert link.submitted == [], "nobody is online"
    link.set(read_nodes(home)["south"], "online")
    rehearsals.step()
    (run,) = link.submitted
    assert (run["federation"]["final"], run["federation"]["only"]) == ("rehearse", ["south"])
    assert run["federation"]["rounds"] == 0
    assert said == [f"south rehearse: {run['run_id']}"]
    rehearsals.step()
    Rehearsals(home, link, said.append).step()
    assert len(link.submitted) == 1
    link.set(read_nodes(home)["north"], "online")
    rehearsals.step()
    assert link.submitted[1]["federation"]["only"] == ["north"]
    asked = link.asked
    rehearsals.step()
    assert link.asked == asked, "when nobody is new, nobody is asked"


def test_new_keys_rehearse_anew(home, monkeypatch):
    monkeypatch.setattr("server.rehearsal.EVERY_S", 0.0)
    monkeypatch.setattr("server.submit.installed_bundle", lambda: b"")
    link = Link()
    Reception(home, link, lambda line: None).step()
    for node in read_nodes(home).values():
        link.set(node, "online")
    Rehearsals(home, link, lambda line: None).step()
    register = SiteRegister.read(home)
    changed = [replace(site, signing_key="a" * 64) if site.name == "north" else site for site in register.sites]
    replace(register, sites=tuple(changed)).write(home)
    Rehearsals(home, link, lambda line: None).step()
    assert [run["federation"]["only"] for run in link.submitted] == [["north", "south"], ["north"]]
