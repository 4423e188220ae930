"""What stands between a browser and a page: who it may be, which paths there are, and what the page may load.

Gradio's own program offers more than a page needs: files, a proxy, an interface for programs, a fetch from elsewhere.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

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
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_OVERWRITTEN = {name for name, _ in HEADERS}


class Door:
    """An ASGI program in front of the page's."""

    def __init__(self, page: Application, address: Address, port: int) -> None:
        """`port` is the one that is really listened to."""
        self._page = page
        self._scheme = "http" if address.certificate is None else "https"
        # A name that somebody else's DNS points to loopback would be another site's page in this browser.
        names = {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")}
        self._hosts = names if address.is_loopback else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._page(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _OVERWRITTEN]
                message["headers"] = [*kept, *HEADERS]
            await send(message)

        status = self._refused(scope)
        if status:
            await send_guarded({"type": "http.response.start", "status": status, "headers": []})
            await send_guarded({"type": "http.response.body", "body": b""})
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
