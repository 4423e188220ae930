"""A site behind a forward proxy, as most hospitals have one: everything goes through it, and it can read nothing."""

import base64
import http.server
import select
import socket
import threading

import pytest

from protocol.flower import free_port
from tests.e2e.one_site import ENV, found, rehearse, start_server

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(900)]

OUTSIDE = "127.0.0.2"
"""Not the loopback's usual address: that one never goes through a proxy."""
USER, PASSWORD = "jdoe", "Tr0ub4dor"
CREDENTIALS = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class Proxy(http.server.ThreadingHTTPServer):
    """Opens tunnels for those who know the password, and keeps every request line and all that went through."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.requests, self.sent, self.came = [], bytearray(), bytearray()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Tunnel(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        if self.headers.get("proxy-authorization") != CREDENTIALS:
            self.send_error(407)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            relay(self.connection, there, self.server.sent, self.server.came)

    def parse_request(self):
        parsed = super().parse_request()
        self.server.requests.append(self.requestline)
        return parsed

    def log_message(self, *_):
        """Nothing on the terminal."""


def relay(here, there, sent, came):
    """Pass bytes both ways, and keep them, until one end closes."""
    ways = {here: (there, sent), there: (here, came)}
    while True:
        for end in select.select(list(ways), [], [])[0]:
            try:
                content = end.recv(1 << 16)
            except ConnectionError:
                return
            if not content:
                return
            other, kept = ways[end]
            kept += content
            other.sendall(content)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """A federation whose site knows of no way out but the proxy, after a rehearsal."""
    federation = found(tmp_path_factory.mktemp("proxy"), f"{OUTSIDE}:{free_port()}", host=OUTSIDE)
    federation.proxy = Proxy()
    # At the server's machine a proxy is set too, one that is away: its own commands must not need it.
    server = start_server(federation, ENV, *everywhere(f"http://127.0.0.1:{free_port()}"))
    try:
        way = f"http://{USER}:{PASSWORD}@127.0.0.1:{federation.proxy.server_port}"
        federation.said = rehearse(federation, ENV, *everywhere(way))
        yield federation
    finally:
        server.stop()
        federation.proxy.shutdown()
        federation.proxy.server_close()


def everywhere(proxy):
    """All the variables that name a proxy for something, in both spellings."""
    names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
    return [f"{spelling}={proxy}" for name in names for spelling in (name, name.lower())]


def test_a_site_rehearses_through_the_proxy(rehearsed):
    # 513,827 values leave as int8 with 2,008 scales; the weights come as float32.
    assert "rehearsed: 0.5 MB of weights left" in rehearsed.said
    assert len(rehearsed.proxy.sent) > 0.52e6, "the weights went this way"
    assert len(rehearsed.proxy.came) > 2.1e6


def test_the_proxy_is_asked_for_a_way_to_the_server_and_for_nothing_else(rehearsed):
    address = (rehearsed.hub / "federation.yaml").read_text().split('address: "')[1].split('"')[0]
    assert set(rehearsed.proxy.requests) == {f"CONNECT {address} HTTP/1.1"}


def test_the_proxy_can_read_nothing_of_what_goes_through(rehearsed):
    for word in (b"/v1/fleet/", b"flwr-signature", b"HTTP/1.1", b"fedmumc"):
        assert word not in rehearsed.proxy.sent
        assert word not in rehearsed.proxy.came


def test_the_password_of_the_proxy_is_written_down_nowhere(rehearsed):
    assert PASSWORD not in rehearsed.said
    for place in (rehearsed.site, rehearsed.hub):
        assert [path for path in place.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []
