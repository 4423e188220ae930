"""The server's log, `state/log.jsonl`, of what it sent and what came; and what it remembers of the sites' own logs."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field

from configs.loader import load
from mumc_model.data.files import write_atomically
from protocol.chainfile import ChainFile
from protocol.envelope import NOTHING
from protocol.errors import ChainError, LogError
from protocol.hashchain import Head
from protocol.lock import exclusive
from server.home import Home

LOG_CONTEXT = "server-log"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a site last said of itself."""

    log: Head = field(default_factory=Head)
    """How far its log goes."""
    ledger: str = NOTHING
    """Hash of the last row of its privacy ledger."""


Heads = dict[str, Known]
"""By site."""


def server_log(home: Home) -> ChainFile:
    """The server's log."""
    return ChainFile(home.state / "log.jsonl", LOG_CONTEXT)


def read_heads(home: Home) -> Heads:
    """What `state/heads.json` remembers.

    Raises:
        LogError: it is damaged.
    """
    path = home.state / "heads.json"
    if not path.is_file():
        return {}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return {site: load(Known, known, site) for site, known in plain.items()}
    except (ValueError, AttributeError) as error:
        raise LogError(
            f"{path} is not what the server remembers of its sites ({error}); put its newest copy back"
        ) from error


def write_heads(home: Home, heads: Mapping[str, Known]) -> None:
    """Remember it."""
    plain = {name: asdict(known) for name, known in heads.items()}
    write_atomically(home.state / "heads.json", json.dumps(plain, indent=1, sort_keys=True).encode())


def remember(home: Home, site: str, said: Known, seen: Head) -> None:
    """Keep what a site says of itself in a reply; `seen` is how far the order said that its log went.

    Runs at one time, a rehearsal beside a run, remember together, and their replies may come in another order than the
    site gave them.

    Raises:
        ChainError: its log has lost lines of which it once told, or was written anew.
        LogError: the file is damaged, or another process holds it for too long.
    """
    with _held(home):
        heads = read_heads(home)
        before, head = heads.get(site, Known()).log, said.log
        if head.count < seen.count or (head.count == before.count and head.hash != before.hash):
            had = max(seen.count, before.count)
            raise ChainError(
                f"the log of {site} has {head.count} lines and had {had}: lines were lost, or it was written anew"
            )
        if head.count > before.count:
            write_heads(home, heads | {site: said})


def forget_site(home: Home, site: str) -> None:
    """Note that a site was revoked: should it come back with new keys, its log begins anew."""
    with _held(home):
        heads = read_heads(home)
        if known := heads.pop(site, None):
            server_log(home).append(home.signer(), {"kind": "revoked", "site": site, "heads": asdict(known)})
            write_heads(home, heads)


def _held(home: Home) -> AbstractContextManager[None]:
    return exclusive(home.state / "heads.lock", LogError)
