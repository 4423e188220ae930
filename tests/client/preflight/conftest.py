"""A site that has joined, and servers of every kind at the address that it dials, each a real one on the loopback."""

import contextlib
import dataclasses
import functools
import http.server
import select
import socket
import ssl
import threading
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import yaml

from client.joining import prepare
from client.keys import SiteKeys
from client.preflight import checks
from client.preflight.case import Case
from client.preflight.run import read_run
from configs.compose import compose
from configs.loader import dump, load
from protocol.certificates import read_certificate
from protocol.enrolment import Join
from protocol.signing import new_key, public_hex
from server.certificates import Issued, new_authority, new_server, now_utc
from server.config import RunConfig
from tests.client.conftest import TINY
from tests.federation import LIMITS, limit

UNKNOWN_NODE = b'{"code":2004,"detail":"Failed to activate SuperNode."}'
KNOWN_NODE = b'{"code":2003,"detail":"Invalid heartbeat interval."}'
"""What a SuperLink of Flower 1.41 answers; test_superlink.py asks a real one."""


class Hub(http.server.ThreadingHTTPServer):
    """A server with TLS that answers every request in one way."""

    daemon_threads = True

    def __init__(self, folder: Path, issued: Issued | None, behind=timedelta(), status=404, body=b"{}", dated=True):
        super().__init__(("127.0.0.1", 0), Answer)
        self.behind, self.status, self.body, self.dated = behind, status, body, dated
        if issued is not None:
            self.certificate = read_certificate(issued.certificate)
            (folder / "hub.crt").write_bytes(issued.certificate)
            (folder / "hub.key").write_bytes(issued.key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "hub.crt", folder / "hub.key")
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()

    def handle_error(self, request, address):
        """A client that breaks a handshake off is nothing to print."""


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(self.server.status)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def date_time_string(self, timestamp=None):
        return format_datetime(now_utc() - self.server.behind, usegmt=True) if self.server.dated else ""

    def log_message(self, *_):
        """Nothing on the terminal."""


class Proxy(http.server.ThreadingHTTPServer):
    """A forward proxy that knows every name as the loopback, or lets nobody out."""

    daemon_threads = True

    def __init__(self, opens=True):
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.opens, self.asked = opens, []
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()


class Tunnel(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers.get("proxy-authorization")))
        if not self.server.opens:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        there = socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2])))
        ends = {self.connection: there, there: self.connection}
        with there, contextlib.suppress(OSError):
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (content := end.recv(1 << 16)):
                        return
                    ends[end].sendall(content)

    def log_message(self, *_):
        """Nothing on the terminal."""


@dataclasses.dataclass
class Site:
    """A site that has joined a federation, whose server each test makes."""

    root: Path
    run: object
    place: Path
    signer: object = dataclasses.field(default_factory=new_key)
    authority: Issued = dataclasses.field(default_factory=lambda: new_authority("lung", now_utc() - timedelta(days=99)))

    def case(self):
        return Case(self.root, self.run)

    def find(self, name):
        """What the check of that name finds, once those that it needs have been made."""
        found = {}
        wanted = checks_before(name)
        for check in checks.CHECKS:
            if check.name in wanted:
                found[check.name] = checks._look(check, self.asked, found)
        return found[name]

    @functools.cached_property
    def asked(self):
        return self.case()

    def issue(self, *names, start=timedelta(), days=30):
        return new_server(self.authority, names or ["localhost"], now_utc() + start, days)

    def hub(self, issued=None, host="localhost", **options):
        """A server that the site dials; by default one with a good certificate."""
        hub = Hub(self.place, issued or self.issue(), **options)
        self.dial(f"{host}:{hub.server_port}")
        return hub

    def dial(self, address, peers=0):
        """Pin that address, and so many peers."""
        keys = SiteKeys(self.root)
        auth, signing = keys.public
        join = Join(
            federation="lung",
            address=address,
            ca=self.authority.certificate.decode(),
            server_key=public_hex(self.signer),
            site="north",
            auth_key=auth,
            signing_key=signing,
            units=10,
            peers={f"peer-{number}": public_hex(new_key()) for number in range(peers)},
            serial=1,
            issued="2026-11-25T05:00:00+00:00",
        )
        keys.pin(join.signed(self.signer))

    def set(self, **settings):
        path = self.root / "site.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))

    def limit(self, **limits):
        limit(self.root, **LIMITS | limits)


def checks_before(name):
    """The check of that name and all that it needs."""
    needs = {check.name: check.needs for check in checks.CHECKS}
    found, open_ = set(), [name]
    while open_:
        found.add(here := open_.pop())
        open_ += needs[here]
    return found


def run_file(place, *overrides):
    """A run's file, as `mumc-server config` prints it."""
    path = place / "run.yaml"
    path.write_text(yaml.safe_dump(dump(load(RunConfig, compose("run", [*TINY, *overrides])))))
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    return run_file(tmp_path_factory.mktemp("run"))


@pytest.fixture
def site(folder, tmp_path, tiny_run, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (folder / "site.yaml").write_text("name: north\ndevice: cpu\n")
    prepare(folder, "north", 10)
    found = Site(folder, read_run(tiny_run), tmp_path)
    found.limit()
    found.dial("localhost:9092")
    return found
