"""What stands between a browser and a page: who it may be, which paths there are, and what the page may load.

Gradio's own program offers more than a page needs: files, a proxy, an interface for programs, a fetch from elsewhere.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from client.ui.address import Address

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

PATHS = (
    "/",
    "/config",
    "/favicon.ico",
    "/login",
    "/logout",
    "/theme.css",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/run/predict",
    "/gradio_api/startup-events",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
)
"""The paths that a browser asks for, whole."""
PREFIXES = ("/assets/", "/static/", "/gradio_api/file=", "/gradio_api/heartbeat/", "/gradio_api/queue/")
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
PROGRAM = ("/assets/", "/static/")
"""Files of Gradio, whose names change with their content; a browser may keep these, and nothing else of a page."""
KEYLESS = b"This page opens at the address that its program printed, with the key in it.\n"
_OVERWRITTEN = {b"cache-control", *(name for name, _ in HEADERS)}


class Door:
    """An ASGI program in front of the page's."""

    def __init__(self, page: Application, address: Address, port: int, key: str = "") -> None:
        """`port` is the one that is really listened to; `key` is asked for at the first visit, if there is one."""
        self._page, self._scheme, self._key = page, address.scheme, key
        # Cookies know no ports, and another page of this machine has another key.
        self._cookie = f"fedmumc-page-{port}"
        # A name that somebody else's DNS points to loopback would be another site's page in this browser.
        self._hosts = address.names(port) if address.is_loopback else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._page(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _OVERWRITTEN]
                message["headers"] = [*kept, *HEADERS, (b"cache-control", _kept_by_a_browser(scope, message))]
            await send(message)

        status = self._refused(scope)
        if status:
            await send_guarded({"type": "http.response.start", "status": status, "headers": []})
            await send_guarded({"type": "http.response.body", "body": b""})
            return
        if not self._holds_key(scope):
            await self._ask_for_key(scope, send_guarded)
            return
        await self._page(scope, receive, send_guarded)

    def _refused(self, scope: Message) -> int:
        """The status with which a request is refused; 0 where it is let through."""
        if scope["type"] != "http":
            return 404
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts is not None and host not in self._hosts:
            return 421
        if origin is not None and origin != f"{self._scheme}://{host}":
            return 403
        path: str = scope["path"]
        # A link that is not relative to this machine would have Gradio fetch it.
        foreign = path.startswith("/gradio_api/file=") and "://" in path
        return 404 if foreign or not (path in PATHS or path.startswith(PREFIXES)) else 0

    def _holds_key(self, scope: Message) -> bool:
        """Whether the browser was let in before; nobody is asked where the page has no key."""
        if not self._key:
            return True
        try:
            cookies = SimpleCookie("; ".join(value.decode("latin-1") for value in _values(scope, b"cookie")))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_key(cookies[self._cookie].value)

    async def _ask_for_key(self, scope: Message, send: Send) -> None:
        """Let in who has the key in the address, which then leaves the address; tell everyone else."""
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if scope["path"] == "/" and self._is_key(asked.get("key", [""])[0]):
            secure = "; Secure" if self._scheme == "https" else ""
            cookie = f"{self._cookie}={self._key}; Path=/; HttpOnly; SameSite=Strict{secure}"
            headers = [(b"location", b"/"), (b"set-cookie", cookie.encode("ascii"))]
            await send({"type": "http.response.start", "status": 303, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": KEYLESS})

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._key.encode())


def _kept_by_a_browser(scope: Message, answer: Message) -> bytes:
    """For how long; what is not of the program may be about patients."""
    of_the_program = answer["status"] == 200 and scope["path"].startswith(PROGRAM)
    return b"private, max-age=86400" if of_the_program else b"no-store"


def _values(scope: Message, name: bytes) -> list[bytes]:
    return [value for found, value in scope["headers"] if found.lower() == name]
