"""Who may log in to a page: names with salted scrypt hashes of their passwords, a line each, in one private file."""

import asyncio
import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Any

from client.errors import PageError
from protocol.errors import SigningError
from protocol.keyfiles import read_secret, write_secret

LEAST_CHARACTERS = 10
WAIT_S = 1.0
"""Whoever gave a wrong password waits so long for the answer."""
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}
Entry = tuple[bytes, bytes]
"""A salt, and the hash of the password with it; a new password has a new salt, even where it is the old one again."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Users:
    """The users of a page, read anew at each request, so that who is taken out of the file is out of the page."""

    def __init__(self, path: Path) -> None:
        """Read it once, so that a file that cannot be used is told now.

        Raises:
            PageError: there is none, others can read it, nobody is in it, or a line is none of ours.
        """
        self.path, self._one_at_a_time = path, asyncio.Lock()
        if not self._read():
            raise PageError(f"{path} names nobody; add a user with --users {path} --add-user NAME")

    async def check(self, name: str, password: str) -> bool:
        """Whether this is the user's password; a wrong one is answered late. The page goes on for all others."""
        # Many tries at once would take the memory and the processors of the whole machine.
        async with self._one_at_a_time:
            right = await asyncio.to_thread(self._is_right, name, password)
        if not right:
            await asyncio.sleep(WAIT_S)
        return right

    def entry(self, name: str) -> Entry | None:
        """What the file says of the name now; nothing where it names it no more, or cannot be used any more."""
        try:
            return self._read().get(name)
        except PageError:
            return None

    def _is_right(self, name: str, password: str) -> bool:
        salt, known = self._read().get(name, (b"\0" * 16, b""))
        return hmac.compare_digest(_hash(password, salt), known)

    def _read(self) -> dict[str, Entry]:
        return _parse(self.path)


class Visitors(dict[str, str]):
    """The names of those who are logged in by their cookie's token, while their line of the file stays as it was."""

    def __init__(self, users: Users) -> None:
        """Nobody is logged in yet."""
        super().__init__()
        self._users = users
        self._entries: dict[str, Entry | None] = {}

    def __setitem__(self, token: str, name: str) -> None:
        """Somebody has logged in."""
        self._entries[token] = self._users.entry(name)
        super().__setitem__(token, name)

    def __delitem__(self, token: str) -> None:
        """Somebody has logged out."""
        super().__delitem__(token)
        del self._entries[token]

    def get(self, token: str | None, default: Any = None) -> Any:
        """The name of who holds the token, if the password of then is the one of now."""
        if token is None or token not in self:
            return default
        name, entry = self[token], self._entries[token]
        return name if entry is not None and entry == self._users.entry(name) else default


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


def _parse(path: Path) -> dict[str, Entry]:
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
