"""The server, layer by layer: its name, its port, its certificate, its clock, and whether it knows this site."""

import ipaddress
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import httpx
from cryptography.exceptions import InvalidSignature
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.error import ApiErrorCode

from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, skipped, warned
from client.preflight.wire import PATIENCE_S, Handshake, Route, knock, shake_pinned
from protocol.certificates import check_certificate, describe, read_certificate
from protocol.enrolment import Join
from protocol.messages import one_line

CONNECT_S = 5.0
AHEAD_S, BEHIND_S = SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
"""Flower refuses a site whose clock is further ahead of the server's, or further behind it."""
UNEASY_S = 60
RENEWAL = timedelta(days=14)
ASK_NETWORK = "ask your network department to let this machine open connections to {}, or set HTTPS_PROXY to its proxy"


def dns(case: Case) -> Finding:
    """Whether the name of the server, or of the proxy before it, leads to an address."""
    route = case.route
    host, port = route.first
    what, here = _first(route)
    if _is_address(host):
        return passed(f"{what} is given by its address, so there is no name to look up", here=here)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host name"
        remedy = (
            "set HTTPS_PROXY to the proxy of this network"
            if route.proxy
            else "check the address with the operator and this machine's name service; where only a proxy leads out, "
            "set HTTPS_PROXY"
        )
        return failed(f"the name of {what} is not found: {reason}", remedy, here=here)
    addresses = ", ".join(sorted({str(entry[4][0]) for entry in found}))
    if route.proxy:
        return passed(f"the name of {what} is found", here=f"{here}: {addresses}")
    return passed(f"{host} is {addresses}")


def tcp(case: Case) -> Finding:
    """Whether the port of the server, or of the proxy before it, can be connected to."""
    route = case.route
    what, here = _first(route)
    remedy = "check HTTPS_PROXY" if route.proxy else ASK_NETWORK.format(f"{route.host}:{route.port}")
    started = time.perf_counter()
    try:
        socket.create_connection(route.first, timeout=CONNECT_S).close()
    except ConnectionRefusedError:
        down = remedy if route.proxy else f"ask the operator whether the server is up; if it is, {remedy}"
        return failed(f"{what} refuses the connection", down, here=here)
    except TimeoutError:
        return failed(f"{what} does not answer within {CONNECT_S:g} s, as behind a firewall", remedy, here=here)
    except OSError as error:
        return failed(f"{what} is out of reach: {error.strerror}", remedy, here=here)
    seconds = time.perf_counter() - started
    return passed(
        f"{what} takes connections ({1000 * seconds:.0f} ms)", here=here, numbers={"connect_seconds": round(seconds, 4)}
    )


def tls(case: Case) -> Finding:
    """Whether who answers is the federation's server, by the CA that this site has pinned."""
    now, shown = datetime.now(UTC), case.handshake
    if isinstance(shown, httpx.HTTPError):
        return _no_tls(case.route, shown)
    check_certificate(shown.certificate, read_certificate(case.join.ca), case.route.host, now)
    try:
        shake_pinned(case.route, case.join.ca)
    except httpx.HTTPError as error:
        return _no_tls(case.route, error)
    last = shown.certificate.not_valid_after_utc
    days = (last - now).days
    words = f"{shown.version}, certificate {describe(shown.certificate)} of the federation's CA, until {last:%Y-%m-%d}"
    if last - now < RENEWAL:
        return warned(
            f"{words}, in {days} days",
            "remind the operator to renew it: mumc-server renew DIR",
            numbers={"days_left": days},
        )
    return passed(words, numbers={"days_left": days})


def clock(case: Case) -> Finding:
    """This machine's clock against the server's."""
    shown = case.handshake
    if isinstance(shown, httpx.HTTPError) or not _is_of_ca(shown, case.join):
        return skipped("tls")
    if shown.skew is None:
        return warned("the server's answer tells no time", "compare this machine's clock with another by hand")
    skew, slack = shown.skew.total_seconds(), shown.slack.total_seconds()
    numbers = {"skew_seconds": round(skew, 1)}
    limits = f"Flower takes a site from {BEHIND_S} s behind to {AHEAD_S} s ahead"
    words = f"this machine's clock is {_span(skew)} the server's; {limits}"
    remedy = "set this machine's clock, best by NTP (timedatectl set-ntp true); if it is right, tell the operator"
    if skew - slack > AHEAD_S or skew + slack < -BEHIND_S:
        return failed(words, remedy, numbers=numbers)
    if skew - slack > AHEAD_S / 2 or skew + slack < -UNEASY_S:
        return warned(words, remedy, numbers=numbers)
    return passed(f"within {abs(skew) + slack:.0f} s of the server's; {limits}", numbers=numbers)


def server(case: Case) -> Finding:
    """Whether the server lets this site in; nothing changes there, and a client that is connected is not disturbed."""
    try:
        answer = knock(case.route, case.join.ca, case.keys.node_key())
    except httpx.HTTPError as error:
        return failed(f"the server does not answer: {_words(error)}", "ask the operator what its log says")
    code = _code(answer)
    if code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return passed(f"it knows {case.join.site} by its node key")
    if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return failed(
            f"it does not know the node key of {case.join.site}",
            f"ask the operator whether mumc-server sites lists {case.join.site} as enrolled and mumc-server start is "
            "running; if the site was revoked, it enrols anew",
        )
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return failed(
            "it does not take the signature of this site's node key",
            "look at the clock; if it is right, a proxy may take headers away: ask your network department",
        )
    return failed(
        f"it answers HTTP {answer.status_code}, which no SuperLink does",
        "ask the operator: the address is of another service, or a reverse proxy does not pass on v1/fleet",
    )


def _first(route: Route) -> tuple[str, str]:
    """Who is connected to, in words that may be sent, and for the terminal which proxy that is."""
    host, port = route.first
    if route.proxy is None:
        return f"{host}:{port}", ""
    return "the proxy of HTTPS_PROXY", f"{host}:{port}"


def _is_of_ca(shown: Handshake, join: Join) -> bool:
    """Whether the federation's CA issued the certificate, whatever its dates, so that its holder's clock counts."""
    try:
        shown.certificate.verify_directly_issued_by(read_certificate(join.ca))
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _no_tls(route: Route, error: httpx.HTTPError) -> Finding:
    server = f"{route.host}:{route.port}"
    if isinstance(error, httpx.ProxyError):
        return failed(
            f"the proxy opens no way to {server}: {_words(error)}",
            f"ask your network department to let CONNECT {server} pass",
        )
    if isinstance(error, httpx.TimeoutException):
        return failed(f"{server} answers no handshake within {PATIENCE_S:g} s", "ask the operator and your network")
    return failed(
        f"there is no TLS with {server}: {_words(error)}",
        "ask the operator whether a SuperLink with TLS is there, and your network department whether something between "
        "opens the connection",
    )


def _words(error: BaseException) -> str:
    """What went wrong, in the words of the innermost library that says it."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ssl.SSLError):
            return one_line((getattr(at, "verify_message", "") or at.reason or "").replace("_", " ").lower())
        at = at.__cause__ or at.__context__
    return one_line(str(error)) or type(error).__name__


def _code(answer: httpx.Response) -> int:
    try:
        found = answer.json()
        return int(found["code"])
    except (ValueError, KeyError, TypeError):
        return 0


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _span(seconds: float) -> str:
    away = abs(seconds)
    for one, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if away >= 2 * one:
            return f"{away / one:.0f} {word} {'ahead of' if seconds > 0 else 'behind'}"
    return f"{away:.0f} s {'ahead of' if seconds > 0 else 'behind'}"
