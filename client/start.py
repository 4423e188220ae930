"""The site's two halves: Flower's SuperNode, which holds the connection, and our runner, which answers its orders."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.config import read_site_config
from client.errors import SiteError
from client.follow import Follower
from client.keys import SiteKeys
from client.runner import TaskRunner
from protocol.bundle import installed_digest
from protocol.enrolment import Join
from protocol.flower import LOOPBACK, Keeper, Program, alone, free_port, program_path
from protocol.keyfiles import write_secret


@dataclass(frozen=True)
class Client:
    """A site that is connected, or tries to be."""

    name: str
    """Of the site."""
    keeper: Keeper
    runner: TaskRunner
    follower: Follower


@contextmanager
def client(
    root: Path, *, supervise: bool, rehearsal: bool = False, say: Callable[[str], None] = print
) -> Iterator[Client]:
    """The client of the site in the folder `root`, started; it ends with the block.

    Args:
        root: The site's folder.
        supervise: Whether a SuperNode that has ended is started again.
        rehearsal: Whether only orders to rehearse are followed.
        say: Where lines for a person go.

    Raises:
        SiteError: the site has set no limits.
        EnrolmentError, SigningError: it has not joined, or its keys are not as they should be.
        ProcessError: a client of this site is at work already.
    """
    config, keys = read_site_config(root), SiteKeys.open(root)
    join, _ = keys.joined(), keys.node_key()
    limits = config.policy.runs
    if limits is None:
        raise SiteError(
            f"{root / 'site.yaml'} sets no limits (policy.runs), and without them this site trains nothing; write "
            f"the usual ones into it with: mumc-site limits {root} --write"
        )
    with alone(root, "mumc-site start"):
        secret_file = keys.folder / "superexec.secret"
        secret = secrets.token_hex(32).encode()
        write_secret(secret_file, secret, replace=True)
        port = free_port()
        program = supernode(root, keys, join, secret_file, port)
        say(f"{join.site} of {join.federation}: orders of {join.address}, limits of {root / 'site.yaml'}")
        runner = TaskRunner(
            root, f"{LOOPBACK}:{port}", secret, installed_digest(), limits.memory_gib, rehearsal=rehearsal, say=say
        )
        follower = Follower(root, join.address, program.log, say)
        try:
            with Keeper([program], restart=supervise, say=say) as keeper:
                yield Client(join.site, keeper, runner, follower)
        finally:
            runner.close()


def supernode(root: Path, keys: SiteKeys, join: Join, secret_file: Path, port: int) -> Program:
    """The SuperNode: it dials the server and nothing else, and runs none of the code that a run brings along."""
    command = [
        program_path("flower-supernode"),
        *("--superlink", join.address),
        *("--root-certificates", str(keys.ca_cert)),
        *("--auth-supernode-private-key", str(keys.auth_key)),
        *("--isolation", "process"),
        *("--host", LOOPBACK),
        *("--port", str(port)),
        *("--superexec-auth-secret-file", str(secret_file)),
    ]
    own = {"FLWR_HOME": str(root / "state" / "flower")}
    return Program(name="supernode", command=command, log=root / "state" / "supernode.log", environment=own)
