"""The site's keys, made here and never sent, and the join file that it has pinned."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.log import site_log_file
from mumc_model.data.files import write_atomically, write_if_changed
from protocol.enrolment import Join
from protocol.errors import EnrolmentError, SigningError
from protocol.keyfiles import erase, make_private_folder, read_secret, sync_folder, write_secret
from protocol.node_keys import NodeKey, new_node_key, private_bytes, public_pem, read_node_key, to_openssh
from protocol.papers import read_paper, to_json
from protocol.signing import new_key, public_hex, read_private_key


@dataclass(frozen=True)
class KeyPair:
    """The two private keys of a site, in one folder."""

    folder: Path

    @property
    def auth_key(self) -> Path:
        """P-384, OpenSSH: `flower-supernode --auth-supernode-private-key`."""
        return self.folder / "auth.key"

    @property
    def auth_pub(self) -> Path:
        """Its public half, OpenSSH: what `flwr supernode register` reads."""
        return self.folder / "auth.pub"

    @property
    def signing_key(self) -> Path:
        """Ed25519, PEM. Written last, so where it is the pair is whole."""
        return self.folder / "signing.key"

    @property
    def exists(self) -> bool:
        """Whether the pair is whole."""
        return self.signing_key.is_file()

    def make(self) -> None:
        """Fresh keys in place of half a pair or none.

        Raises:
            SigningError: there is a whole pair.
        """
        if self.exists:
            raise SigningError(f"{self.folder} holds keys already; mumc-site rotate makes new ones")
        make_private_folder(self.folder)
        auth = new_node_key()
        write_secret(self.auth_key, private_bytes(auth), replace=True)
        write_atomically(self.auth_pub, to_openssh(public_pem(auth)).encode("ascii"))
        write_secret(self.signing_key, new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def signing(self) -> Ed25519PrivateKey:
        """The key that signs.

        Raises:
            SigningError: it is missing, or open to others.
        """
        return read_private_key(self.signing_key)

    def node_key(self) -> NodeKey:
        """The key for Flower's node authentication.

        Raises:
            SigningError: it is missing, or open to others.
        """
        return read_node_key(read_secret(self.auth_key))

    @property
    def public(self) -> tuple[str, str]:
        """The public halves: that of node authentication in PEM, and the signing key's in hex."""
        return public_pem(self.node_key()), public_hex(self.signing())

    def erase(self) -> None:
        """Destroy the pair."""
        for path in (self.signing_key, self.auth_key, self.auth_pub):
            erase(path)


class SiteKeys(KeyPair):
    """The folder `keys/` of a site's folder: the pair in use, the pinned join file, and on rotation the next pair.

    What a crash left half done is finished by whoever next reads a key or the pinned file.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root / "keys")

    @classmethod
    def open(cls, root: Path) -> "SiteKeys":
        """Those of a site that has keys.

        Raises:
            SigningError: there are none.
        """
        keys = cls(root)
        keys._finish()
        if not keys.exists:
            raise SigningError(f"{root} has no keys yet; make them with: mumc-site init {root}")
        return keys

    def signing(self) -> Ed25519PrivateKey:
        """The signing key in use."""
        self._finish()
        return super().signing()

    def node_key(self) -> NodeKey:
        """The key for node authentication in use."""
        self._finish()
        return super().node_key()

    @property
    def federation(self) -> Path:
        """The pinned join file."""
        return self.folder / "federation.json"

    @property
    def ca_cert(self) -> Path:
        """The CA out of it: `flower-supernode --root-certificates`."""
        return self.folder / "ca.crt"

    @property
    def next(self) -> KeyPair:
        """The pair that a rotation has made and the server has not yet confirmed."""
        return KeyPair(self.folder / "next")

    def pinned(self) -> Join | None:
        """The join file that this site believes, or None before it has joined.

        Raises:
            EnrolmentError: it was changed.
        """
        self._finish()
        if not self.federation.exists():
            return None
        join = read_paper(Join, self.federation)
        join.verify()
        return join

    def joined(self) -> Join:
        """The join file that this site believes.

        Raises:
            EnrolmentError: the site has not joined, or the file was changed.
        """
        join = self.pinned()
        if join is None:
            raise EnrolmentError("this site has not joined a federation; take the operator's file in: mumc-site join")
        return join

    def pin(self, join: Join) -> None:
        """Believe this join file from now on."""
        write_atomically(self.federation, to_json(join).encode())
        write_atomically(self.ca_cert, join.ca.encode("ascii"))

    def adopt_next(self, join: Join) -> None:
        """Use the next pair, and believe the join file that names it, in one step; the site's log goes on under it.

        Raises:
            ChainError: the log was tampered with; no new key vouches for it.

        The join file beside the next pair is that step: from then on whoever opens the keys finishes the move.
        """
        site_log_file(self.folder.parent).hand_over(self.signing(), self.next.signing())
        write_atomically(self._verdict, to_json(join).encode())
        self._finish()

    def forget(self) -> None:
        """Destroy both pairs and the pinned file; the log is closed under another name, for no later key can go on."""
        self.next.erase()
        shutil.rmtree(self.next.folder, ignore_errors=True)
        self.erase()
        for path in (self.federation, self.ca_cert):
            path.unlink(missing_ok=True)
        log = site_log_file(self.folder.parent).path
        if log.exists():
            log.rename(log.with_name(f"log-until-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"))

    @property
    def _verdict(self) -> Path:
        return self.next.folder / "join.json"

    def _finish(self) -> None:
        """Do the rest of a move that `adopt_next` or `pin` began; every part may be done already."""
        if self._verdict.is_file():
            with self._held():
                if self._verdict.is_file():
                    self._move_next()
        elif self.federation.is_file():
            write_if_changed(self.ca_cert, read_paper(Join, self.federation).ca.encode("ascii"))

    def _move_next(self) -> None:
        join = read_paper(Join, self._verdict)
        for source, target in (
            (self.next.auth_key, self.auth_key),
            (self.next.auth_pub, self.auth_pub),
            (self.next.signing_key, self.signing_key),
        ):
            if source.exists():
                erase(target)
                source.replace(target)
        sync_folder(self.folder)
        self.pin(join)
        self._verdict.unlink()
        shutil.rmtree(self.next.folder, ignore_errors=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """One process at a time: a second would erase what the first has moved."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
