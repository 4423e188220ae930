"""The server's log, `state/log.jsonl`, of what it sent and what came; and what it remembers of the sites' own logs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from configs.loader import load
from mumc_model.data.files import write_atomically
from protocol.chainfile import ChainFile
from protocol.envelope import NOTHING
from protocol.errors import LogError
from protocol.hashchain import Head
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


def forget_site(home: Home, site: str) -> None:
    """Note that a site was revoked: should it come back with new keys, its log begins anew."""
    heads = read_heads(home)
    if known := heads.pop(site, None):
        server_log(home).append(home.signer(), {"kind": "revoked", "site": site, "heads": asdict(known)})
        write_heads(home, heads)
