"""This machine's memory of its ledgers, outside their folders: how far each had come, and whose data it charged.

With it a restored older copy of a site's folder is found, and a copied or renamed data set does not start a new budget.
"""

import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.privacy.errors import LedgerError
from mumc_model.data.files import write_atomically
from protocol.hashchain import Head
from protocol.keyfiles import write_secret
from protocol.lock import exclusive

VARIABLE = "MUMC_REGISTRY"
HASH_BYTES = 32


class Registry:
    """One folder, readable by its owner alone; every ledger is known by the public key that signs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def here(cls) -> "Registry":
        """The registry that `$MUMC_REGISTRY` names, else the one in this user's home."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else Path.home() / ".local" / "state" / "fedmumc" / "registry")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the registry; a ledger does for the whole of a change.

        Raises:
            LedgerError: another process holds it for too long.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        with exclusive(self.folder / "lock", LedgerError):
            yield

    def head(self, ledger: str) -> Head | None:
        """How far that ledger had come, or None for one that was never seen here.

        Raises:
            LedgerError: what is kept of it cannot be read.
        """
        path = self.folder / f"{ledger}.head"
        if not path.exists():
            return None
        try:
            kept = json.loads(path.read_bytes())
            return Head(count=int(kept["count"]), hash=str(kept["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise LedgerError(f"{path} cannot be read; put it back from a backup of the registry") from None

    def keep_head(self, ledger: str, head: Head) -> None:
        """Remember how far the ledger has come; what it tells of must be on the disk already."""
        content = json.dumps({"count": head.count, "hash": head.hash}).encode()
        write_atomically(self.folder / f"{ledger}.head", content)

    def charge(self, ledger: str, units: Iterable[str]) -> None:
        """Remember durably that these units are charged to that ledger.

        Raises:
            LedgerError: another ledger of this machine has charged some of them.
        """
        key = self._key()
        charged = {hmac.digest(key, unit.encode("utf-8", "surrogatepass"), "sha256") for unit in units}
        for path in sorted(self.folder.glob("*.units")):
            if path.stem != ledger and (shared := len(charged & _read(path))):
                raise LedgerError(
                    f"{shared} of these {len(charged)} units are charged to another ledger of this machine "
                    f"({path.stem[:16]}...), and a copied or renamed data set has the same budget; "
                    "train in the site folder that holds that ledger, or leave these units out"
                )
        own = self.folder / f"{ledger}.units"
        known = _read(own)
        if not charged <= known:
            write_atomically(own, b"".join(sorted(charged | known)))

    def _key(self) -> bytes:
        """The secret under which units are hashed, made once a machine."""
        path = self.folder / "units.key"
        if not path.exists():
            if any(self.folder.glob("*.units")):
                raise LedgerError(f"{path} is gone, and with it what the charged units were; put it back from a backup")
            write_secret(path, secrets.token_bytes(HASH_BYTES))
        key = path.read_bytes()
        if len(key) != HASH_BYTES or path.stat().st_mode & 0o077:
            raise LedgerError(f"{path} must be {HASH_BYTES} bytes that its owner alone can read; run: chmod 600 {path}")
        return key


def _read(path: Path) -> set[bytes]:
    content = path.read_bytes() if path.exists() else b""
    if len(content) % HASH_BYTES:
        raise LedgerError(f"{path} is damaged; put it back from a backup of the registry")
    return {content[start : start + HASH_BYTES] for start in range(0, len(content), HASH_BYTES)}
