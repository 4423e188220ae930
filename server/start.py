"""The server's programs, and who they let in: the register of sites, kept the same at the SuperLink."""

import os
import sys
from collections.abc import Callable, Mapping

from protocol import certificates
from protocol.certificates import read_certificate
from protocol.enrolment import split_address
from protocol.flower import LOOPBACK, Program, environment, program_path
from server.certificates import now_utc
from server.control import Control, Node
from server.errors import ControlError
from server.home import HOME, FederationFile, Home
from server.roster import SiteRegister
from server.seal import read_nodes, write_nodes

ANY = ("0.0.0.0", "::", "")
LARGE_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""Blocks of a megabyte and more, as weights are made of, go back to the system when they are freed (glibc)."""
PATIENCE = 120
"""So many looks in vain before a SuperLink that does not answer is worth a word."""


def programs(home: Home, config: FederationFile) -> list[Program]:
    """The SuperLink that sites dial, and the SuperExec that starts the ServerApp of each run on this machine."""
    link = [
        *(sys.executable, "-Pm", "server.superlink"),
        *("--host", config.host, "--port", str(config.port)),
        *("--ssl-ca-certfile", str(home.ca_cert)),
        *("--ssl-certfile", str(home.server_cert)),
        *("--ssl-keyfile", str(home.server_key)),
        "--enable-supernode-auth",
        *("--database", str(home.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(home.superexec_secret)),
        *("--health-server-address", f"{LOOPBACK}:{config.health_port}"),
        "--disable-runtime-dependency-installation",
    ]
    executor = [
        program_path("flower-superexec"),
        *("--runtime-api-address", local_address(config)),
        *("--root-certificates", str(home.ca_cert)),
        *("--superexec-auth-secret-file", str(home.superexec_secret)),
    ]
    own = {HOME: str(home.root), "FLWR_HOME": str(home.state / "flower")}
    own |= LARGE_BLOCKS
    return [
        Program(name="superlink", command=link, log=home.state / "superlink.log", environment=own),
        Program(name="superexec", command=executor, log=home.state / "superexec.log", environment=own),
    ]


def local_address(config: FederationFile) -> str:
    """HOST:PORT under which programs on this machine reach the SuperLink."""
    return f"{LOOPBACK if config.host in ANY else config.host}:{config.port}"


def control(home: Home) -> Control:
    """The SuperLink of this federation, on this machine: from now on no proxy stands between this process and it."""
    address = local_address(home.config())
    os.environ.update(environment(split_address(address)[0]))
    return Control(address, home.ca_cert.read_bytes())


def check_certificate(home: Home) -> None:
    """Return only if sites that dial the federation's address now would accept the server's certificate.

    Raises:
        CertificateError: they would not; the message says why.
    """
    ca, own = (read_certificate(path.read_bytes()) for path in (home.ca_cert, home.server_cert))
    certificates.check_certificate(own, ca, split_address(home.config().address)[0], now_utc())


class Reception:
    """Registers enrolled sites with the SuperLink and shuts revoked ones out, as the register says now.

    Args:
        home: The federation's folder.
        control: Its SuperLink.
        say: Where lines for a person go.
    """

    def __init__(self, home: Home, control: Control, say: Callable[[str], None] = print) -> None:
        self._home, self._control, self._say = home, control, say
        self._seen: int | None = None
        self._vain = 0

    def step(self) -> None:
        """Look whether the register has changed, or was never brought over; a SuperLink that is away is asked later."""
        stamp = self._home.roster.stat().st_mtime_ns
        if stamp == self._seen:
            return
        try:
            self._bring_over(SiteRegister.read(self._home))
        except ControlError as error:
            self._vain += 1
            if self._vain == PATIENCE:
                self._say(f"{error}; state/superlink.log says more")
            return
        self._seen, self._vain = stamp, 0

    def _bring_over(self, register: SiteRegister) -> None:
        known = [node for node in self._control.nodes() if node.status != "unregistered"]
        keys = {site.name: site.auth_key for site in register.active}
        nodes: dict[str, int] = {}
        for name, key in keys.items():
            found = _with_key(known, key)
            nodes[name] = found.node_id if found else self._control.register(key, name)
        before = read_nodes(self._home)
        write_nodes(self._home, nodes)
        for node in known:
            if node.node_id not in nodes.values():
                self._control.unregister(node.node_id)
        for line in _changes(before, nodes):
            self._say(line)


def _with_key(nodes: list[Node], key: str) -> Node | None:
    return next((node for node in nodes if node.public_key.strip() == key.strip()), None)


def _changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    came = [f"{name} may connect" for name in now if now[name] != before.get(name)]
    return came + [f"{name} is shut out" for name in sorted(before.keys() - now.keys())]
