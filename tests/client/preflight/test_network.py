import socket
import threading
from datetime import datetime, timedelta

import pytest

from client.preflight import network
from protocol.certificates import describe, read_certificate
from protocol.flower import free_port
from server.certificates import new_authority, new_server, now_utc
from tests.client.preflight.conftest import KNOWN_NODE, UNKNOWN_NODE, Proxy

DAY = timedelta(days=1)


@pytest.fixture
def now(monkeypatch):
    """This machine's clock as certificates are looked at, standing still."""
    still = now_utc()

    class Still(datetime):
        @classmethod
        def now(cls, zone=None):
            return still

    monkeypatch.setattr(network, "datetime", Still)
    return still


def minute(moment):
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def test_a_name_that_is_not_found_is_told_with_the_remedy(site):
    site.dial("hub.example.invalid:9092")
    found = site.find("dns")
    assert found.status == "fail"
    assert found.what.startswith("the name of hub.example.invalid:9092 is not found: ")
    assert found.remedy == (
        "check the address with the operator and this machine's name service; where only a proxy leads out, set "
        "HTTPS_PROXY"
    )
    assert site.find("tls").cause == "dns"


def test_an_address_needs_no_name(site):
    site.dial("127.0.0.1:9092")
    assert site.find("dns").what == "127.0.0.1:9092 is given by its address, so there is no name to look up"


def test_a_closed_port_is_told_apart_from_one_that_does_not_answer(site, monkeypatch):
    closed = free_port()
    site.dial(f"127.0.0.1:{closed}")
    found = site.find("tcp")
    assert (found.status, found.what) == ("fail", f"127.0.0.1:{closed} refuses the connection")
    assert found.remedy == (
        "ask the operator whether the server is up; if it is, ask your network department to let this machine open "
        f"connections to 127.0.0.1:{closed}, or set HTTPS_PROXY to its proxy"
    )
    monkeypatch.setattr(network, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        taken = [socket.socket() for _ in range(4)]
        for one in taken:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        del site.asked
        site.dial(f"127.0.0.1:{port}")
        found = site.find("tcp")
        for one in taken:
            one.close()
    assert found.what == f"127.0.0.1:{port} does not answer within 0.2 s, as behind a firewall"
    assert found.remedy.startswith("ask your network department")


def test_a_good_certificate_passes_with_its_date(site):
    hub = site.hub()
    found = site.find("tls")
    last = hub.certificate.not_valid_after_utc
    assert (found.status, found.numbers["days_left"]) == ("pass", 29)
    assert found.what == (
        f"TLSv1.3, certificate {describe(hub.certificate)} of the federation's CA, until {last:%Y-%m-%d}"
    )


def test_a_certificate_near_its_end_is_a_warning(site):
    site.hub(site.issue(days=3))
    found = site.find("tls")
    assert (found.status, found.remedy) == ("warn", "remind the operator to renew it: mumc-server renew DIR")
    assert found.what.endswith(", in 2 days")


def test_an_expired_certificate_is_named_with_both_dates_and_the_clock_is_still_compared(site, now):
    hub = site.hub(site.issue(start=-10.1 * DAY, days=3))
    found = site.find("tls")
    assert found.status == "fail"
    assert found.what == (
        f"the server's certificate {describe(hub.certificate)} expired on "
        f"{minute(hub.certificate.not_valid_after_utc)}, and this machine's clock says {minute(now)}, "
        "7 days later"
    )
    assert found.remedy == "if the clock is right, the operator renews it: mumc-server renew DIR"
    assert site.find("clock").status == "pass"
    assert site.find("server").cause == "tls"


def test_a_certificate_that_is_not_valid_yet_is_named_with_both_dates(site, now):
    hub = site.hub(site.issue(start=4 * DAY))
    found = site.find("tls")
    assert found.what == (
        f"the server's certificate {describe(hub.certificate)} is not valid before "
        f"{minute(hub.certificate.not_valid_before_utc)}, and this machine's clock says {minute(now)}, "
        "3 days too early"
    )
    assert found.remedy == "set the clock, or look at who made the certificate with a wrong one"


def test_a_certificate_of_another_ca_is_named_and_its_clock_is_not_believed(site):
    hub = site.hub(new_server(new_authority("lung", now_utc()), ["localhost"], now_utc()))
    found, ca = site.find("tls"), read_certificate(site.authority.certificate)
    assert found.what == (
        f"the server's certificate {describe(hub.certificate)} of {hub.certificate.not_valid_before_utc:%Y-%m-%d} was "
        f"not issued by the federation's CA {describe(ca)} of {ca.not_valid_before_utc:%Y-%m-%d}"
    )
    assert found.remedy == (
        "another machine answers, a proxy opens the connection, or the CA was made anew: ask the operator"
    )
    assert (site.find("clock").status, site.find("clock").cause) == ("skip", "tls")


def test_a_certificate_for_another_name_is_told_with_the_names_that_would_do(site):
    hub = site.hub(site.issue("hub.example.org", "192.0.2.7"))
    found = site.find("tls")
    last = hub.certificate.not_valid_after_utc
    assert found.what == (
        f"the server's certificate {describe(hub.certificate)}, valid until {last:%Y-%m-%d}, is for hub.example.org, "
        "192.0.2.7, not for localhost"
    )
    assert found.remedy == (
        "dial one of these, or let the operator add the name: mumc-server renew DIR --san localhost"
    )


def test_a_port_without_tls_is_told_so(site):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        site.dial(f"localhost:{plain.getsockname()[1]}")

        def answer():
            for _ in range(2):
                connection, _ = plain.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        found = site.find("tls")
        thread.join()
    assert found.what.startswith(f"there is no TLS with localhost:{plain and site.asked.route.port}: wrong version")


@pytest.mark.parametrize(
    ("behind", "status", "words"),
    [
        (timedelta(seconds=0), "pass", "within "),
        (timedelta(seconds=5), "warn", "s ahead of the server's"),
        (timedelta(minutes=5), "fail", "this machine's clock is 5 minutes ahead of the server's"),
        (timedelta(seconds=-90), "warn", "s behind the server's"),
        (timedelta(minutes=-6), "fail", "this machine's clock is 6 minutes behind the server's"),
        (timedelta(days=3), "fail", "this machine's clock is 3 days ahead of the server's"),
    ],
)
def test_a_skewed_clock_is_measured_against_what_flower_tolerates(site, behind, status, words):
    site.hub(behind=behind)
    found = site.find("clock")
    assert found.status == status
    assert words in found.what
    assert found.what.endswith("Flower takes a site from 305 s behind to 5 s ahead")
    assert found.numbers["skew_seconds"] == pytest.approx(behind.total_seconds(), abs=1.5)
    if status != "pass":
        assert found.remedy == (
            "set this machine's clock, best by NTP (timedatectl set-ntp true); if it is right, tell the operator"
        )


def test_a_server_that_tells_no_time_is_a_warning(site):
    site.hub(dated=False)
    assert site.find("clock").what == "the server's answer tells no time"


@pytest.mark.parametrize(
    ("status", "body", "outcome", "words"),
    [
        (400, KNOWN_NODE, "pass", "it knows north by its node key"),
        (412, UNKNOWN_NODE, "fail", "it does not know the node key of north"),
        (401, b'{"detail":"Invalid SuperNode authentication"}', "fail", "it does not take the signature of this site"),
        (404, b"<html>", "fail", "it answers HTTP 404, which no SuperLink does"),
        (200, b"", "fail", "it answers HTTP 200, which no SuperLink does"),
    ],
)
def test_the_server_s_answer_says_whether_the_site_is_known(site, status, body, outcome, words):
    site.hub(status=status, body=body)
    found = site.find("server")
    assert (found.status, found.what.startswith(words), bool(found.remedy)) == (outcome, True, outcome == "fail")


def test_through_a_proxy_every_layer_is_looked_at_and_its_password_is_told_to_nobody(site, monkeypatch):
    proxy = Proxy()
    hub = site.hub(site.issue("hub.example.invalid"), host="hub.example.invalid", status=400, body=KNOWN_NODE)
    monkeypatch.setenv("HTTPS_PROXY", f"http://jdoe:Tr0ub4dor@127.0.0.1:{proxy.server_port}")
    found = [site.find(name) for name in ("dns", "tcp", "tls", "clock", "server")]
    assert [one.status for one in found] == ["pass"] * 5
    assert found[1].what.startswith("the proxy of HTTPS_PROXY takes connections")
    assert found[1].here == f"127.0.0.1:{proxy.server_port}"
    assert {path for path, _ in proxy.asked} == {f"hub.example.invalid:{hub.server_port}"}
    assert all(credentials.startswith("Basic ") for _, credentials in proxy.asked)
    assert not [one for one in found if "Tr0ub4dor" in str(one) or "jdoe" in str(one)]


def test_a_proxy_that_lets_nobody_out_is_told_apart_from_one_that_is_away(site, monkeypatch):
    site.dial("hub.example.invalid:9092")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{Proxy(opens=False).server_port}")
    found = site.find("tls")
    assert found.what == "the proxy opens no way to hub.example.invalid:9092: 403 Forbidden"
    assert found.remedy == "ask your network department to let CONNECT hub.example.invalid:9092 pass"
    del site.asked
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    found = site.find("tcp")
    assert (found.what, found.remedy) == ("the proxy of HTTPS_PROXY refuses the connection", "check HTTPS_PROXY")


def test_a_proxy_is_passed_by_where_no_proxy_says_so(site, monkeypatch):
    site.dial("hub.example.invalid:9092")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.invalid:3128")
    assert site.case().route.first == ("proxy.example.invalid", 3128)
    monkeypatch.setenv("NO_PROXY", "example.invalid")
    assert site.case().route.first == ("hub.example.invalid", 9092)
    site.dial("localhost:9092")
    monkeypatch.delenv("NO_PROXY")
    assert site.case().route.proxy is None
