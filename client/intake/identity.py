"""Pseudonyms by a key that stays at the site: one patient is one pseudonym, and nobody else can tell whose."""

import hmac
import secrets
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

from mumc_model.errors import DataError
from protocol.errors import SigningError
from protocol.keyfiles import make_private_folder, read_secret, write_secret

KEY_FILE = "keys/pseudonym.key"
MOST_DAYS = 3650
"""Dates are moved back by one day up to ten years."""
_KEY_BYTES = 32


class Pseudonyms:
    """What stands in the place of identifiers. Source: PS3.15 E.1.1, with keyed hashes in the place of a table."""

    def __init__(self, key: bytes) -> None:
        """Any 32 bytes; whoever has them can test whether an identifier belongs to a pseudonym."""
        self.key = key

    @classmethod
    def of_site(cls, root: Path) -> "Pseudonyms":
        """Those of a site folder, whose key is made at the first import.

        Raises:
            DataError: the key's file is damaged, or others can read it.
        """
        path = root / KEY_FILE
        try:
            if not path.exists():
                make_private_folder(path.parent)
                write_secret(path, secrets.token_bytes(_KEY_BYTES))
            key = read_secret(path)
        except SigningError as error:
            raise DataError(str(error)) from error
        if len(key) != _KEY_BYTES:
            raise DataError(
                f"{path} holds {len(key)} bytes and not {_KEY_BYTES}; restore it from the backup: with another key the "
                "same patients would come in as new ones"
            )
        return cls(key)

    def patient(self, identifier: str, issuer: str = "") -> str:
        """A name of 24 letters and digits for a patient of one issuer of identifiers."""
        return f"p-{self._digest('patient', issuer, identifier).hex()[:22]}"

    def uid(self, uid: str) -> str:
        """A UID of its own for each UID; derived from 122 bits. Source: PS3.5 B.2."""
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        # The bits that say of a UUID that it is one, version 4.
        number = (number & ~(0xF << 76) | (4 << 76)) & ~(3 << 62) | (2 << 62)
        return f"2.25.{number}"

    def accession(self, number: str) -> str:
        """Sixteen letters and digits, which an accession number may have."""
        return self._digest("accession", number).hex()[:16]

    def source(self, name: str) -> str:
        """What an import remembers a file by, whose name may be a patient's."""
        return self._digest("source", name).hex()[:32]

    def word(self, word: str) -> bytes:
        """What a word of an identity is known by: a report can be searched for it, and nobody can read it."""
        return self._digest("word", word.casefold())[:16]

    def shifted(self, day: date, patient: str) -> date | None:
        """The day moved back by this patient's number of days; None where the calendar begins later than that."""
        days = 1 + int.from_bytes(self._digest("shift", patient)[:8], "big") % MOST_DAYS
        try:
            return day - timedelta(days=days)
        except OverflowError:
            return None

    def _digest(self, *parts: str) -> bytes:
        # The length of each part stands before it, so that no two lists of parts read alike.
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.new(self.key, message, sha256).digest()
