"""The nginx configuration that is shipped, before a real SuperLink: sites reach their interface and nothing else."""

import re
import shutil
import socket
import ssl
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import PushObjectRequest

from protocol.flower import free_port
from server.certificates import new_authority, now_utc
from tests.e2e.deployment import wait_for
from tests.e2e.one_site import found, rehearse, start_server

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "deployment" / "nginx.conf"
MISSING = b"HTTP/1.1 404 "
PROTOBUF = "Content-Type: application/protobuf\r\nAccept: application/protobuf\r\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A federation whose sites dial nginx, both at work; the SuperLink listens on another port of the loopback."""
    place = tmp_path_factory.mktemp("nginx")
    outside, inside = free_port(), free_port()
    federation = found(place, f"127.0.0.1:{outside}", port=inside)
    federation.outside, federation.inside = outside, inside
    server = start_server(federation)
    try:
        with nginx(federation, outside, hub=federation.hub):
            yield federation
    finally:
        server.stop()


@contextmanager
def nginx(federation, port, **files):
    """An nginx at work on a port of the loopback."""
    place = federation.place / f"nginx-{port}"
    place.mkdir()
    process = subprocess.Popen(
        ["nginx", "-c", configure(place, port, federation.inside, **files), "-p", place, "-g", "daemon off;"]
    )
    try:
        wait_for("nginx", lambda: answers(port), seconds=30)
        yield place
    finally:
        process.terminate()
        process.wait(30)


def configure(place, port, inside, hub):
    """The shipped file with this machine's addresses and paths, and nothing else changed."""
    text = SHIPPED.read_text()
    for shipped, here in {
        "/run/nginx.pid": place / "nginx.pid",
        "/var/log/nginx/": f"{place}/",
        "/var/lib/fedmumc/hub": hub,
        "server 127.0.0.1:9092;": f"server 127.0.0.1:{inside};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server_name hub.example.org;": "server_name 127.0.0.1;",
    }.items():
        assert shipped in text
        text = text.replace(shipped, str(here))
    file = place / "nginx.conf"
    file.write_text(text)
    return file


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def say(federation, path, *, method="POST", port=None, headers="", body=b"", length=0):
    """The answer's first bytes to a request that is written as it stands: no client tidies up the path."""
    context = ssl.create_default_context(cafile=federation.hub / "keys" / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", port or federation.outside), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
        line.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body)
        return line.recv(4096)


def test_a_site_joins_through_it_and_rehearses(hub):
    said = rehearse(hub)
    assert "rehearsed: " in said
    log = (hub.place / f"nginx-{hub.outside}" / "access.log").read_text()
    for path in ("activate-node", "pull-messages", "pull-object", "get-fab", "push-object", "push-messages"):
        assert re.search(rf'"POST /v1/fleet/{path} HTTP/1.1" 200 ', log), path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/health",
        "/openapi.json",
        "/v1/",
        "/v1/control/list-nodes",
        "/v1/control/start-run",
        "/v1/fleet",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/..%2fcontrol/list-nodes",
        "/v1/runtime/acquire-task",
    ],
)
def test_everything_else_is_missing_from_outside(hub, path):
    assert say(hub, path).startswith(MISSING)


@pytest.mark.parametrize("method", ["DELETE", "GET", "HEAD", "OPTIONS", "PUT"])
def test_sites_only_ever_post(hub, method):
    assert say(hub, "/v1/fleet/pull-messages", method=method).startswith(MISSING)


def test_the_same_would_have_been_answered_without_it(hub):
    """What is missing outside is there on the loopback: the test above looks for what exists."""
    for path in ("/v1/control/list-nodes", "/v1/runtime/acquire-task"):
        assert not say(hub, path, port=hub.inside).startswith(MISSING)


def test_whoever_has_no_node_key_gets_to_the_superlink_and_no_further(hub):
    assert say(hub, "/v1/fleet/pull-messages", headers=PROTOBUF).startswith(b"HTTP/1.1 401 ")


def test_the_largest_piece_of_an_update_gets_to_the_superlink(hub):
    """Which turns it away only because nobody signed it."""
    piece = PushObjectRequest(object_id="0" * 64, object_content=bytes(MAX_ARRAY_CHUNK_SIZE)).SerializeToString()
    assert say(hub, "/v1/fleet/push-object", headers=PROTOBUF, body=piece).startswith(b"HTTP/1.1 401 ")


def test_a_larger_body_than_any_site_sends_is_turned_away_before_the_superlink_reads_it(hub):
    assert say(hub, "/v1/fleet/push-object", length=16 * 2**20 + 1).startswith(b"HTTP/1.1 413 ")


def test_another_server_in_the_place_of_the_superlink_gets_no_request(hub, tmp_path):
    """With another federation's CA the same SuperLink is a stranger."""
    shutil.copytree(hub.hub / "keys", tmp_path / "hub" / "keys")
    (tmp_path / "hub" / "keys" / "ca.crt").write_bytes(new_authority("other", now_utc()).certificate)
    port = free_port()
    with nginx(hub, port, hub=tmp_path / "hub") as place:
        assert say(hub, "/v1/fleet/pull-messages", port=port).startswith(b"HTTP/1.1 502 ")
        assert "certificate verify error" in (place / "error.log").read_text()
