"""The task runner's way to the site's own SuperNode."""

import http.server
import threading

import pytest

from client.runner import TaskRunner
from protocol.flower import free_port

ACQUIRE = "/v1/runtime/acquire-task"


class SuperNode(http.server.ThreadingHTTPServer):
    """Answers every question for a task with an empty message, which says that there is none."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing on the terminal."""


@pytest.fixture
def proxied(monkeypatch):
    """An environment as hospitals have it: everything goes to a proxy, which here is nowhere."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy", "PATH"):
        monkeypatch.setenv(name, "elsewhere.example")


def test_a_proxy_for_everything_does_not_stand_between_the_runner_and_the_supernode(tmp_path, proxied):
    node = SuperNode()
    runner = TaskRunner(tmp_path, f"127.0.0.1:{node.server_port}", b"secret", "c" * 64)
    runner._warm = True  # No task will come, so nothing need be imported for one.
    runner.step()
    runner.close()
    node.shutdown()
    node.server_close()
    assert node.asked == [ACQUIRE]
