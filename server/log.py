"""The server's log, `state/log.jsonl`, of what it sent and what came; and what it remembers of the sites' own logs."""

import json
from collections.abc import Mapping

from mumc_model.data.files import write_atomically
from protocol.chainfile import ChainFile
from protocol.errors import LogError
from protocol.hashchain import Head
from server.home import Home

LOG_CONTEXT = "server-log"

Heads = dict[str, dict[str, Head]]
"""By site: how far its log and its privacy ledger went when it last replied."""


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
        return {site: {kind: Head(**head) for kind, head in heads.items()} for site, heads in plain.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path} is not what the server remembers of its sites ({error}); put its newest copy back"
        ) from error


def write_heads(home: Home, heads: Mapping[str, Mapping[str, Head]]) -> None:
    """Remember it."""
    plain = {name: {kind: vars(head) for kind, head in kinds.items()} for name, kinds in heads.items()}
    write_atomically(home.state / "heads.json", json.dumps(plain, indent=1, sort_keys=True).encode())


def forget_site(home: Home, site: str) -> None:
    """Note that a site was revoked: should it come back with new keys, its log begins anew."""
    heads = read_heads(home)
    if known := heads.pop(site, {}):
        told = {kind: vars(head) for kind, head in known.items()}
        server_log(home).append(home.signer(), {"kind": "revoked", "site": site, "heads": told})
        write_heads(home, heads)
