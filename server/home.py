"""The federation's folder at the aggregator: `federation.yaml`, and where its keys, state, runs and sites lie."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configs.loader import ConfigurationError, load
from protocol.certificates import as_name
from protocol.enrolment import is_address, split_address
from protocol.errors import CertificateError
from protocol.papers import NAME
from protocol.signing import read_private_key
from server.errors import FolderError

HOME = "MUMC_HOME"
"""Environment variable that names the federation's folder to the ServerApp; `mumc-server start` sets it."""
SETTINGS = "federation.yaml"
MAX_SETTINGS_BYTES = 1 << 20
LOCAL_NAMES = ("localhost", "127.0.0.1")
"""In every certificate of the server, since the operator's own commands dial it on this machine."""


@dataclass(frozen=True, kw_only=True)
class SecaggFile:
    """What the federation asks of secure aggregation."""

    required: bool = False
    """Whether a run without secure aggregation is refused."""
    colluding: int = 1
    """So many sites may join forces with the server and still learn no other site's update."""

    def __post_init__(self) -> None:
        """Refuse a number that protects from nobody."""
        if self.colluding < 0:
            raise ConfigurationError(f"secagg.colluding is {self.colluding}; choose 0 or more")


@dataclass(frozen=True, kw_only=True)
class FederationFile:
    """What `federation.yaml` says; a run never changes it."""

    name: str
    """Of the federation, as the sites see it."""
    address: str
    """HOST:PORT that sites dial."""
    sans: tuple[str, ...] = ()
    """Further DNS names and IP addresses of the server's certificate; the host of `address` is always in it."""
    host: str = "127.0.0.1"
    """Interface that the SuperLink listens on. Loopback stands behind a proxy that lets `/v1/fleet/` through alone."""
    port: int = 9092
    """Port that the SuperLink listens on."""
    health_port: int = 9093
    """Port on loopback that says whether the SuperLink is well."""
    secagg: SecaggFile = field(default_factory=SecaggFile)

    def __post_init__(self) -> None:
        """Refuse names that no certificate or join file could carry, and ports that are none."""
        if NAME.fullmatch(self.name) is None:
            raise ConfigurationError(f"name is {self.name[:80]!r}; use up to 64 letters, digits, dots, - or _")
        if not is_address(self.address):
            raise ConfigurationError(f"address is {self.address[:80]!r}; write HOST:PORT, as sites dial it")
        for san in self.names:
            try:
                as_name(san)
            except CertificateError as error:
                raise ConfigurationError(f"a name for the certificate cannot be: {error}") from None
        for name in ("port", "health_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; choose it from 1 to 65535")
        if self.port == self.health_port:
            raise ConfigurationError(f"port and health_port are both {self.port}; choose two")

    @property
    def names(self) -> tuple[str, ...]:
        """What the server's certificate is for; first the host that sites dial."""
        return tuple(dict.fromkeys([split_address(self.address)[0], *self.sans, *LOCAL_NAMES]))


@dataclass(frozen=True)
class Home:
    """A federation's folder."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> "Home":
        """The folder that `mumc-server init` made.

        Raises:
            FolderError: it is none.
        """
        if not (root / SETTINGS).is_file():
            raise FolderError(f"{root} holds no {SETTINGS}; make a federation with: mumc-server init DIR")
        return cls(root)

    @property
    def settings(self) -> Path:
        """`federation.yaml`."""
        return self.root / SETTINGS

    @property
    def keys(self) -> Path:
        """Folder of everything private, mode 0700."""
        return self.root / "keys"

    @property
    def ca_cert(self) -> Path:
        """Certificate of the CA, which every site pins."""
        return self.keys / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Key of the CA; only `renew` reads it."""
        return self.keys / "ca.key"

    @property
    def server_cert(self) -> Path:
        """Certificate that the SuperLink shows."""
        return self.keys / "server.crt"

    @property
    def server_key(self) -> Path:
        """Key of that certificate."""
        return self.keys / "server.key"

    @property
    def signing_key(self) -> Path:
        """Ed25519 key that signs join files and orders."""
        return self.keys / "signing.key"

    @property
    def superexec_secret(self) -> Path:
        """What Flower's own processes on this machine show each other."""
        return self.keys / "superexec.secret"

    @property
    def state(self) -> Path:
        """Folder of what survives a restart."""
        return self.root / "state"

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.state / "superlink.db"

    @property
    def runs(self) -> Path:
        """Folder with an output folder a run."""
        return self.root / "runs"

    @property
    def roster(self) -> Path:
        """The register of sites; see `server/roster.py`."""
        return self.root / "roster.json"

    @property
    def sites(self) -> Path:
        """Folder of the join files."""
        return self.root / "sites"

    @property
    def data_cards(self) -> Path:
        """Folder of the data cards that sites have handed over; see `server/datacards.py`."""
        return self.root / "datacards"

    def join_file(self, site: str) -> Path:
        """The newest answer to one site."""
        return self.sites / f"{site}.join.json"

    def config(self) -> FederationFile:
        """The parsed `federation.yaml`.

        Raises:
            ConfigurationError: it cannot be read, is not YAML, has an unknown key or an impossible value.
        """
        try:
            with self.settings.open("rb") as file:
                node = yaml.safe_load(file.read(MAX_SETTINGS_BYTES))
        except OSError as error:
            raise ConfigurationError(f"{self.settings} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{self.settings} is not valid YAML: {error}") from None
        return load(FederationFile, node or {})

    def signer(self) -> Ed25519PrivateKey:
        """The server's signing key.

        Raises:
            SigningError: it is missing, or open to others.
        """
        return read_private_key(self.signing_key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one command that changes it.

        Raises:
            FolderError: another command is at it.
        """
        import fcntl

        with (self.keys / ".lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise FolderError(f"another command is changing {self.root}; try again when it has ended") from None
            yield


def settings_text(config: FederationFile) -> str:
    """The text of a new `federation.yaml`, with a word on every line."""
    sans = ", ".join(f'"{san}"' for san in config.sans)
    return f"""\
name: {yaml.safe_dump(config.name).splitlines()[0]}
address: "{config.address}"  # what sites dial
sans: [{sans}]  # further names of the certificate; after a change: mumc-server renew DIR
host: "{config.host}"  # interface of the SuperLink; loopback stands behind a proxy that passes /v1/fleet/ alone
port: {config.port}  # of the SuperLink
health_port: {config.health_port}  # on loopback: whether the SuperLink is well
secagg:
  required: {str(config.secagg.required).lower()}  # refuse runs without secure aggregation
  colluding: {config.secagg.colluding}  # so many sites may join forces with the server and learn nothing of others
"""
