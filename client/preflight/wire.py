"""The way to the federation's server, as Flower's SuperNode takes it: straight, or through the proxy of HTTPS_PROXY."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from protocol.enrolment import split_address
from protocol.flower import LOOPBACK
from protocol.node_keys import NodeKey

PATIENCE_S = 10.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Route:
    """Where the server is, and through which proxy."""

    host: str
    port: int
    proxy: httpx.URL | None = None

    @property
    def first(self) -> tuple[str, int]:
        """Host and port to which the site itself opens a connection."""
        if self.proxy is None:
            return self.host, self.port
        return self.proxy.host, self.proxy.port or _PORTS.get(self.proxy.scheme, 80)

    @property
    def url(self) -> str:
        """The server's root."""
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


@dataclass(frozen=True)
class Handshake:
    """What a TLS handshake and one bare request showed, before anybody was believed."""

    certificate: x509.Certificate
    version: str
    skew: timedelta | None
    """This machine's clock minus that of the answer; None where the answer told no time."""
    slack: timedelta
    """By how much the skew may be wrong."""


def route_to(address: str) -> Route:
    """The way to HOST:PORT that the environment names; the loopback is never behind a proxy."""
    host, port = split_address(address)
    found = getproxies()
    proxy = found.get("https") or found.get("all") or ""
    if not proxy or host in (LOOPBACK, "localhost") or proxy_bypass(f"{host}:{port}"):
        return Route(host, port)
    return Route(host, port, httpx.URL(proxy if "://" in proxy else f"http://{proxy}"))


def shake(route: Route) -> Handshake:
    """Whom the site finds there. Nothing is believed of it, and nothing of the site's is sent.

    Raises:
        httpx.HTTPError: there is no TLS, or no answer.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    with _client(route, trusting) as client, client.stream("HEAD", route.url) as response:
        shaken = response.extensions["network_stream"].get_extra_info("ssl_object")
        skew, slack = _skew(response)
        certificate = x509.load_der_x509_certificate(shaken.getpeercert(True))
        return Handshake(certificate, shaken.version(), skew, slack)


def shake_pinned(route: Route, ca: str) -> None:
    """Return only if TLS itself takes the server for the federation's, exactly as Flower's SuperNode will.

    Raises:
        httpx.HTTPError: it does not.
    """
    with _client(route, _pinned(ca)) as client:
        client.head(route.url)


def knock(route: Route, ca: str, key: NodeKey) -> httpx.Response:
    """The server's answer to a site that shows its node key and asks for what cannot be given.

    Flower looks up the key first and then refuses the interval of 0 s, so nothing changes there, and the two refusals
    tell a key that is known from one that is not.

    Raises:
        httpx.HTTPError: there is no answer.
    """
    asked = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=0)
    with _client(route, _pinned(ca)) as client:
        request = client.build_request(
            "POST",
            f"{route.url}v1/fleet/activate-node",
            content=asked.SerializeToString(deterministic=True),
            headers={"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE},
        )
        signed = NodeAuthHttpInterceptor(key, key.public_key())
        context = ProtobufRequestContext(rpc_method="/flwr.proto.Fleet/ActivateNode", message=asked, request=request)
        return signed.intercept(context, lambda ready: client.send(ready.request))


@contextmanager
def _client(route: Route, context: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(verify=context, proxy=route.proxy, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


def _pinned(ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    return context


def _skew(response: httpx.Response) -> tuple[timedelta | None, timedelta]:
    """Skew and its slack: the answer's time is in whole seconds, was cached for up to one, and was on the way."""
    here = datetime.fromtimestamp(time.time(), UTC)
    way = timedelta(seconds=1)
    try:
        there = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError, TypeError):
        return None, way
    if there.tzinfo is None:
        return None, way
    return here - there - way, way
