import pytest

from client.ui.address import Address
from client.ui.door import POLICY, Door
from tests.client.ui.awaiting import finished


async def _page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"public"), (b"x", b"y")]})
    await send({"type": "http.response.body", "body": b"page"})


def ask(
    path="/", *, host="127.0.0.1:7860", origin=None, address=None, kind="http", key="", query="", cookie=None, port=7860
):
    """Status and headers of the door's answer."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    headers += [(b"cookie", cookie.encode())] if cookie else []
    door = Door(_page, address or Address(), port, key)
    scope = {"type": kind, "path": path, "headers": headers, "query_string": query.encode()}
    finished(door(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/assets/a.js",
        "/gradio_api/queue/join",
        "/gradio_api/run/predict",
        "/gradio_api/file=/tmp/x.png",
    ],
)
def test_what_a_browser_needs_goes_through(path):
    assert ask(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/llms.txt",
        "/gradio_api/proxy=https://elsewhere.example/",
        "/proxy=https://elsewhere.example/",
        "/gradio_api/info",
        "/gradio_api/call/divide",
        "/gradio_api/run/divide",
        "/gradio_api/file=https://elsewhere.example/x.png",
        "/gradio_api/mcp/",
        "/docs",
        "/monitoring",
        "/loginx",
    ],
)
def test_all_else_of_gradio_is_not_there(path):
    assert ask(path)[0] == 404


def test_a_name_that_somebody_points_at_this_machine_is_refused():
    assert ask(host="evil.example:7860")[0] == 421
    assert ask(host="127.0.0.1:7861")[0] == 421
    assert ask(host="localhost:7860")[0] == 200


def test_the_host_that_was_asked_for_is_a_name_of_the_page():
    assert ask(host="127.0.0.2:7860", address=Address(host="127.0.0.2"))[0] == 200
    assert ask(host="127.0.0.2:7860")[0] == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_browser_leaves_out_the_port_of_the_scheme_and_no_other(host, tmp_path):
    assert ask(host=host, port=80, origin=f"http://{host}")[0] == 200
    assert ask(host=host, port=443)[0] == 421
    assert ask(host=host)[0] == 421
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).touch()
    secure = Address(certificate=tmp_path / "c.pem", certificate_key=tmp_path / "k.pem")
    assert ask(host=host, port=443, origin=f"https://{host}", address=secure)[0] == 200
    assert ask(host=host, port=80, address=secure)[0] == 421
    assert ask(host="evil.example", port=80)[0] == 421


def test_without_a_login_the_key_of_the_printed_address_is_asked_for_once():
    status, headers = ask(key="k3y", query="key=k3y")
    assert (status, headers[b"location"]) == (303, b"/")
    assert headers[b"set-cookie"] == b"fedmumc-page-7860=k3y; Path=/; HttpOnly; SameSite=Strict"
    for path in ("/", "/config", "/gradio_api/queue/join"):
        assert ask(path, key="k3y", cookie="a=b; fedmumc-page-7860=k3y")[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"query": "key="},
        {"query": "key=K3y"},
        {"query": "key=%ff"},
        {"cookie": "fedmumc-page-7860="},
        {"cookie": "fedmumc-page-7861=k3y"},
        {"cookie": "fedmumc-page-7860=other"},
        {"path": "/gradio_api/queue/join", "query": "key=k3y"},
    ],
)
def test_without_the_key_there_is_nothing(sent):
    assert ask(key="k3y", **sent)[0] == 403


def test_a_page_of_another_site_in_the_same_browser_is_refused():
    assert ask(origin="https://evil.example")[0] == 403
    assert ask(origin="http://127.0.0.1:9999")[0] == 403
    assert ask(origin="null")[0] == 403
    assert ask(origin="http://127.0.0.1:7860")[0] == 200


def test_every_answer_forbids_what_is_from_elsewhere_and_is_not_kept():
    for path in ("/", "/llms.txt"):
        _, headers = ask(path)
        assert headers[b"content-security-policy"] == POLICY.encode()
        assert headers[b"cache-control"] == b"no-store"
        assert b"Cache-Control" not in headers
    assert "unsafe-eval" not in POLICY
    assert "http" not in POLICY


def test_a_browser_may_keep_the_program_and_no_answer_of_it():
    for path in ("/assets/index-1a2b.js", "/static/fonts/a.woff2"):
        assert ask(path)[1][b"cache-control"] == b"private, max-age=86400"
        assert ask(path, key="k3y")[1][b"cache-control"] == b"no-store"
    for path in ("/config", "/gradio_api/file=/tmp/assets/x.png", "/gradio_api/queue/data", "/theme.css"):
        assert ask(path)[1][b"cache-control"] == b"no-store"


def test_websockets_are_not_served():
    assert ask(kind="websocket")[0] == 404


def test_over_tls_the_origin_is_a_secure_one(tmp_path):
    certificate, key, users = (tmp_path / name for name in ("c.pem", "k.pem", "users"))
    for path in (certificate, key):
        path.touch()
    address = Address(host="0.0.0.0", users=users, certificate=certificate, certificate_key=key)
    assert ask(host="site.example:443", origin="https://site.example:443", address=address)[0] == 200
    assert ask(host="site.example:443", origin="http://site.example:443", address=address)[0] == 403
