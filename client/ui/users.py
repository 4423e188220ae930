"""Who may log in to a page: names with salted scrypt hashes of their passwords, a line each, in one private file."""

import hashlib
import hmac
import os
import re
import threading
import time
from pathlib import Path

from client.errors import PageError
from protocol.errors import SigningError
from protocol.keyfiles import read_secret, write_secret

LEAST_CHARACTERS = 10
WAIT_S = 1.0
"""After a wrong password the next try waits so long, whoever makes it."""
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Users:
    """The users of a page, read anew at each login, so that one who was removed cannot come back."""

    def __init__(self, path: Path) -> None:
        """Read it once, so that a file that cannot be used is told now.

        Raises:
            PageError: there is none, others can read it, nobody is in it, or a line is none of ours.
        """
        self.path, self._wrong = path, threading.Lock()
        if not self._read():
            raise PageError(f"{path} names nobody; add a user with --users {path} --add-user NAME")

    def check(self, name: str, password: str) -> bool:
        """Whether this is the user's password. Wrong ones wait for each other."""
        salt, known = self._read().get(name, (b"\0" * 16, b""))
        if hmac.compare_digest(_hash(password, salt), known):
            return True
        with self._wrong:
            time.sleep(WAIT_S)
        return False

    def _read(self) -> dict[str, tuple[bytes, bytes]]:
        return _parse(self.path)


def add_user(path: Path, name: str, password: str) -> None:
    """Put a user into the file, which is made where it is not there; one who is in it gets the new password.

    Raises:
        PageError: the name or the password cannot be used, or the file cannot.
    """
    if not _NAME.fullmatch(name):
        raise PageError(f"{name!r} is no user name; take letters, digits and . _ @ -, at most 64")
    if len(password) < LEAST_CHARACTERS:
        raise PageError(f"the password has {len(password)} characters; take {LEAST_CHARACTERS} or more")
    users = _parse(path) if path.exists() else {}
    salt = os.urandom(16)
    users[name] = (salt, _hash(password, salt))
    lines = "".join(f"{user} {salt.hex()} {known.hex()}\n" for user, (salt, known) in sorted(users.items()))
    write_secret(path, lines.encode("ascii"), replace=True)


def _parse(path: Path) -> dict[str, tuple[bytes, bytes]]:
    if not path.is_file():
        raise PageError(f"there is no file {path}; add a user with --users {path} --add-user NAME")
    try:
        lines = read_secret(path).decode("ascii").splitlines()
        return {name: (bytes.fromhex(salt), bytes.fromhex(known)) for name, salt, known in map(str.split, lines)}
    except SigningError as error:
        raise PageError(str(error)) from error
    except ValueError:
        raise PageError(f"a line of {path} is no user; write the file with --add-user alone") from None


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT)
