"""Where a page is served and who may open it."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from client.errors import PageError


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a page is served."""

    host: str = "127.0.0.1"
    port: int = 0
    users: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a page that strangers could open or read.

        Raises:
            PageError: it listens beyond this machine without a login or without TLS, or half of a certificate is given.
        """
        if (self.certificate is None) != (self.certificate_key is None):
            raise PageError("--certificate and --certificate-key belong together; give both")
        if not self.is_loopback and (self.users is None or self.certificate is None):
            raise PageError(
                f"{self.host} can be reached from other machines, so the page needs a login and TLS: give --users, "
                "--certificate and --certificate-key, or leave --host out"
            )
        for path in (self.certificate, self.certificate_key):
            if path is not None and not path.is_file():
                raise PageError(f"there is no file {path}; give a certificate and its key as PEM files")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def listen(self) -> socket.socket:
        """A socket that listens there.

        Raises:
            PageError: the port is taken, or the host is none of this machine's.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise PageError(
                f"{self.host} port {self.port} cannot be had: {error.strerror}; choose another --port, 0 for any"
            ) from error

    @property
    def scheme(self) -> str:
        """Of its URLs."""
        return "http" if self.certificate is None else "https"

    def names(self, port: int) -> set[str]:
        """Each form in which a browser of this machine names the page: it leaves out the port of the scheme."""
        usual = {"http": 80, "https": 443}[self.scheme]
        hosts = {_in_url(host) for host in ("127.0.0.1", "localhost", "::1", self.host)}
        return {f"{host}:{port}" for host in hosts} | (hosts if port == usual else set())

    def url(self, port: int, key: str = "") -> str:
        """What a person opens; the key is asked for where there is no login."""
        return f"{self.scheme}://{_in_url(self.host)}:{port}/{key and f'?key={key}'}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
