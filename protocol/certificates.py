"""Whether a TLS certificate will do, and if not, which one, since when, and what helps. Without I/O or a clock."""

import ipaddress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from protocol.errors import AuthorityError, CertificateError, ExpiredError, HostNameError, NotYetValidError

MAX_PEM_CHARS = 1 << 16


def read_certificate(pem: str | bytes, what: str = "certificate") -> x509.Certificate:
    """The one certificate in this text; `what` names it in messages.

    Raises:
        CertificateError: there is none, or more than one.
    """
    content = pem.encode("utf-8") if isinstance(pem, str) else pem
    try:
        if len(content) > MAX_PEM_CHARS:
            raise ValueError("too long")
        (certificate,) = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CertificateError(f"the {what} is not one certificate in PEM; ask the operator for the file") from None
    return certificate


def describe(certificate: x509.Certificate) -> str:
    """The name on a certificate and the start of its number, as messages show them."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = "".join(c for c in str(names[0].value) if c.isprintable())[:80] if names else "without a name"
    return f"{name} (number {certificate.serial_number:x})"[:140]


def check_authority(ca: x509.Certificate, now: datetime) -> None:
    """Return only if this is a CA certificate, signed by itself and valid at `now`.

    Raises:
        AuthorityError: it is no CA, or another signed it.
        NotYetValidError: it begins later; ExpiredError: it has ended.
    """
    try:
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        ca.verify_directly_issued_by(ca)
        is_authority = constraints.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, InvalidSignature, TypeError, ValueError):
        is_authority = False
    if not is_authority:
        raise AuthorityError(f"{describe(ca)} is no CA certificate of its own making; ask the operator for a new file")
    _check_time(ca, "CA certificate", now, "ask the operator how to go on: every site has to join anew")


def check_certificate(certificate: x509.Certificate, ca: x509.Certificate, host: str, now: datetime) -> None:
    """Return only if the server's certificate is of this CA, valid at `now`, and for the name `host`.

    Raises:
        AuthorityError: another CA issued it.
        NotYetValidError: it begins later; ExpiredError: it has ended.
        HostNameError: it is for other names.
    """
    check_authority(ca, now)
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError):
        raise AuthorityError(
            f"the server's certificate {describe(certificate)} of {_day(certificate.not_valid_before_utc)} was not "
            f"issued by the federation's CA {describe(ca)} of {_day(ca.not_valid_before_utc)}; another machine "
            "answers, a proxy opens the connection, or the CA was made anew: ask the operator"
        ) from None
    _check_time(certificate, "server's certificate", now, "the operator renews it: mumc-server renew DIR")
    if not _is_for(certificate, host):
        raise HostNameError(
            f"the server's certificate {describe(certificate)}, valid until {_day(certificate.not_valid_after_utc)}, "
            f"is for {', '.join(names_of(certificate)) or 'no name'}, not for {host}; dial one of these, or let the "
            f"operator add the name: mumc-server renew DIR --san {host}"
        )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def as_name(text: str) -> x509.GeneralName:
    """The entry of a certificate for a DNS name or an IP address.

    Raises:
        CertificateError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    labels = text.split(".")
    if len(text) > 253 or not all(_is_label(label) for label in (labels[1:] if labels[0] == "*" else labels)):
        raise CertificateError(f"{text[:80]!r} is neither a DNS name nor an IP address; name what sites dial")
    return x509.DNSName(text)


def _is_label(label: str) -> bool:
    plain = label.replace("-", "").replace("_", "")
    inside = 0 < len(label) <= 63 and not label.startswith("-") and not label.endswith("-")
    return inside and plain.isascii() and plain.isalnum()


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    """As TLS decides it: IP addresses literally, a star stands for one whole label at the left."""
    wanted = as_name(host)
    names = names_of(certificate)
    if isinstance(wanted, x509.IPAddress):
        return str(wanted.value) in names
    _, dot, parent = host.lower().partition(".")
    return any(name.lower() in (host.lower(), f"*{dot}{parent}" if dot else "") for name in names)


def _check_time(certificate: x509.Certificate, what: str, now: datetime, remedy: str) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        raise NotYetValidError(
            f"the {what} {describe(certificate)} is not valid before {_minute(first)}, and this machine's clock says "
            f"{_minute(now)}, {_span(first - now)} too early; set the clock, or look at who made the certificate with "
            "a wrong one"
        )
    if now > last:
        raise ExpiredError(
            f"the {what} {describe(certificate)} expired on {_minute(last)}, and this machine's clock says "
            f"{_minute(now)}, {_span(now - last)} later; if the clock is right, {remedy}"
        )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _span(gap: timedelta) -> str:
    minutes = int(gap.total_seconds() // 60)
    for size, word in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= 2 * size or (minutes >= size and size == 1):
            return f"{minutes // size} {word}{'s' if minutes // size != 1 else ''}"
    return "less than a minute"
