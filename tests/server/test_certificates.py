import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest

from protocol.certificates import as_name, check_authority, check_certificate, describe, names_of, read_certificate
from protocol.errors import AuthorityError, CertificateError, ExpiredError, HostNameError, NotYetValidError
from server.certificates import CLOCK_SLACK, Issued, new_authority, new_server, now_utc, open_authority

NOW = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)
CA = new_authority("lung", NOW)
SERVER = new_server(CA, ["hub.example.org", "127.0.0.1", "::1"], NOW, 30)
ca, server = read_certificate(CA.certificate), read_certificate(SERVER.certificate)


def refusal(error, *, host="hub.example.org", now=NOW, certificate=server, authority=ca) -> str:
    with pytest.raises(error) as caught:
        check_certificate(certificate, authority, host, now)
    return str(caught.value)


@pytest.mark.parametrize("host", ["hub.example.org", "HUB.example.org", "127.0.0.1", "::1", "[::1]", "0:0:0:0:0:0:0:1"])
def test_a_good_certificate_passes_for_each_of_its_names(host):
    check_certificate(server, ca, host, NOW)
    check_certificate(server, ca, host, NOW + timedelta(days=29))


def test_a_clock_six_minutes_slow_is_told_the_certificate_and_the_date():
    check_certificate(server, ca, "hub.example.org", NOW - CLOCK_SLACK)
    newer = read_certificate(new_server(CA, ["hub.example.org"], NOW + timedelta(days=1)).certificate)
    assert refusal(NotYetValidError, certificate=newer, now=NOW + timedelta(days=1, minutes=-6)) == (
        f"the server's certificate {describe(newer)} is not valid before 2026-11-26 04:55 UTC, and this machine's "
        "clock says 2026-11-26 04:54 UTC, 1 minute too early; set the clock, or look at who made the certificate "
        "with a wrong one"
    )


def test_an_expired_certificate_is_named_with_both_dates_and_the_remedy():
    assert refusal(ExpiredError, now=NOW + timedelta(days=33)) == (
        f"the server's certificate {describe(server)} expired on 2026-12-25 05:00 UTC, and this machine's clock says "
        "2026-12-28 05:00 UTC, 3 days later; if the clock is right, the operator renews it: mumc-server renew DIR"
    )


def test_a_certificate_of_another_ca_is_named_with_both_days():
    other = read_certificate(new_authority("lung", NOW).certificate)
    assert refusal(AuthorityError, authority=other) == (
        f"the server's certificate {describe(server)} of 2026-11-25 was not issued by the federation's CA "
        f"{describe(other)} of 2026-11-25; another machine answers, a proxy opens the connection, or the CA was made "
        "anew: ask the operator"
    )


@pytest.mark.parametrize("host", ["evil.example.org", "example.org", "hub.example.org.evil.org", "127.0.0.2"])
def test_another_name_is_refused_with_the_names_that_would_do(host):
    assert refusal(HostNameError, host=host) == (
        f"the server's certificate {describe(server)}, valid until 2026-12-25, is for hub.example.org, 127.0.0.1, ::1, "
        f"not for {host}; dial one of these, or let the operator add the name: mumc-server renew DIR --san {host}"
    )


def test_a_star_stands_for_one_label_at_the_left():
    starred = read_certificate(new_server(CA, ["*.example.org"], NOW).certificate)
    check_certificate(starred, ca, "hub.example.org", NOW)
    for host in ("example.org", "a.hub.example.org"):
        refusal(HostNameError, certificate=starred, host=host)


def test_an_expired_or_future_ca_is_told_apart_from_the_servers_certificate():
    with pytest.raises(ExpiredError, match=r"^the CA certificate fedmumc CA of lung .* every site has to join anew"):
        check_authority(ca, NOW + timedelta(days=4000))
    with pytest.raises(NotYetValidError, match=r"^the CA certificate .* 9 days too early"):
        check_authority(ca, NOW - timedelta(days=10))


def test_a_servers_certificate_is_no_ca():
    with pytest.raises(AuthorityError, match="is no CA certificate"):
        check_authority(server, NOW)
    fake = Issued(SERVER.certificate, SERVER.key)
    with pytest.raises(AuthorityError):
        new_server(fake, ["evil.example.org"], NOW)


@pytest.mark.parametrize("content", [b"", b"junk", CA.certificate + SERVER.certificate, CA.key, b" " * 100_000])
def test_what_is_not_one_certificate_is_refused(content):
    with pytest.raises(CertificateError, match="not one certificate"):
        read_certificate(content)


@pytest.mark.parametrize("name", ["", "a b", "-a.org", "a..b", "http://a", "a" * 64 + ".org", "\u00fc.org", "a\n"])
def test_what_is_no_name_goes_into_no_certificate(name):
    with pytest.raises(CertificateError, match="neither a DNS name nor an IP address"):
        as_name(name)


@pytest.mark.parametrize("days", [0, -3])
def test_a_certificate_lasts_at_least_a_day(days):
    with pytest.raises(CertificateError, match="at least 1"):
        new_server(CA, ["hub.example.org"], NOW, days)


def test_a_certificate_does_not_outlive_its_ca():
    with pytest.raises(CertificateError, match="would outlive its CA, which ends on 2036-11-25"):
        new_server(CA, ["hub.example.org"], NOW, 5000)


def test_key_and_certificate_of_the_ca_have_to_be_a_pair():
    with pytest.raises(CertificateError, match="no pair"):
        open_authority(Issued(CA.certificate, SERVER.key), NOW)
    with pytest.raises(CertificateError, match="no private key"):
        open_authority(Issued(CA.certificate, b""), NOW)


def test_a_name_given_twice_stands_once():
    assert names_of(read_certificate(new_server(CA, ["a.org", "a.org"], NOW).certificate)) == ("a.org",)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A CA and two certificates of today, in files; the second is what a renewal makes."""
    folder, now = tmp_path_factory.mktemp("tls"), now_utc()
    authority = new_authority("lung", now)
    (folder / "ca.crt").write_bytes(authority.certificate)
    for number in (1, 2):
        issued = new_server(authority, ["hub.example.org", "127.0.0.1"], now)
        (folder / f"{number}.crt").write_bytes(issued.certificate)
        (folder / f"{number}.key").write_bytes(issued.key)
    return folder


def shake(folder, number, *, host="127.0.0.1", authority="ca.crt") -> bytes:
    """The certificate that the server shows in a real handshake on loopback, under OpenSSL's strictest rules."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / f"{number}.crt", folder / f"{number}.key")
    client_side = ssl.create_default_context(cafile=str(folder / authority))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                server_side.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=5) as plain,
                client_side.wrap_socket(plain, server_hostname=host) as secure,
            ):
                return secure.getpeercert(binary_form=True) or b""
        finally:
            thread.join()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("host", ["127.0.0.1", "hub.example.org"])
def test_tls_accepts_the_certificate_before_and_after_a_renewal(live, number, host):
    shown = shake(live, number, host=host)
    assert ssl.DER_cert_to_PEM_cert(shown).encode() == (live / f"{number}.crt").read_bytes()


def test_tls_refuses_another_name_and_another_ca(live):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(live, 1, host="evil.example.org")
    (live / "other.crt").write_bytes(new_authority("lung", now_utc()).certificate)
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake(live, 1, authority="other.crt")


def test_the_ca_may_sign_no_further_ca():
    from cryptography import x509

    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert ca.not_valid_after_utc - NOW == timedelta(days=3653)
