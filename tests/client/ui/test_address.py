import socket

import pytest

from client.errors import PageError
from client.ui.address import Address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_loopback_needs_nothing(host):
    assert Address(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.4", "site.example"])
def test_anything_else_needs_a_login_and_tls(host, tmp_path):
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    for given in ({}, {"users": tmp_path}, {"certificate": certificate, "certificate_key": certificate}):
        with pytest.raises(PageError, match="needs a login and TLS: give --users"):
            Address(host=host, **given)
    Address(host=host, users=tmp_path, certificate=certificate, certificate_key=certificate)


def test_half_a_certificate_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(PageError, match="belong together"):
        Address(certificate=tmp_path)
    with pytest.raises(PageError, match="there is no file"):
        Address(certificate=tmp_path / "none", certificate_key=tmp_path / "none")


def test_a_port_that_is_taken_is_said_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PageError, match=f"127.0.0.1 port {port} cannot be had: .*choose another --port"):
            Address(port=port).listen()


def test_port_0_is_any_that_is_free():
    with Address().listen() as listening:
        assert listening.getsockname()[1] > 0


def test_the_url_names_the_scheme_and_encloses_ipv6():
    assert Address(host="::1").url(80) == "http://[::1]:80/"
