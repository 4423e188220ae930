"""How a card speaks of sites: by pseudonym and size, never by name."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass

from protocol.keyfiles import read_secret, write_secret
from server.home import Home
from server.roster import SiteRegister

VERSION = 1
KEY = "pseudonyms.key"
"""In the federation's `keys/`."""


@dataclass(frozen=True)
class Pseudonyms:
    """The names under which a card tells of a run and its sites: the first 48 bits of HMAC-SHA256 under a secret key.

    A site has another one in every run, so that two cards do not show who was in both.
    """

    key: bytes
    run: str
    """As the card calls the run."""

    @classmethod
    def of(cls, home: Home | None, run_id: str, names: Iterable[str]) -> "Pseudonyms":
        """Those of a run. Its own name stands unless it holds one of these names.

        Raises:
            SigningError: others than its owner can read the key, or it cannot be kept.
        """
        key = _key(home) if home else secrets.token_bytes(32)
        told = any(holds_name(run_id, name) for name in names)
        return cls(key, f"run-{_short(key, 'run', run_id)}" if told else run_id)

    def site(self, name: str) -> str:
        """`site-` and twelve hexadecimal digits."""
        return f"site-{_short(self.key, 'site', self.run, name)}"


def resolve(run: str, home: Home, known: Container[str]) -> dict[str, str]:
    """The enrolled site behind each of the known pseudonyms of a run, for whoever has the federation's key.

    Raises:
        SigningError: others than its owner can read the key.
        FolderError: the register cannot be read.
    """
    pseudonyms = Pseudonyms(_key(home), run)
    names = {pseudonyms.site(site.name): site.name for site in SiteRegister.read(home).sites}
    return {pseudonym: name for pseudonym, name in sorted(names.items()) if pseudonym in known}


def size_class(count: int) -> int:
    """The count rounded to its first digit: enough to weigh a site, too little to know it by."""
    step = 10 ** (len(str(abs(count))) - 1)
    return int((count + step / 2) // step * step) if count else 0


def plain_code(code: str, names: Iterable[str]) -> str:
    """A refusal's code, unless its words hold the name of a site, which a site could have put there."""
    return "other" if any(holds_name(code, name) for name in names) else code


def holds_name(text: str, name: str) -> bool:
    """Whether the words of a name stand in a text, one after the other, whatever joins them."""
    words = [re.sub(r"[^a-z0-9]+", " ", part.lower()).strip() for part in (text, name)]
    return f" {words[1]} " in f" {words[0]} "


def _key(home: Home) -> bytes:
    """The federation's key for pseudonyms, made with the first card."""
    path = home.keys / KEY
    if not path.exists():
        write_secret(path, secrets.token_bytes(32))
    return read_secret(path)


def _short(key: bytes, *words: str) -> str:
    content = "\n".join([f"fedmumc/{VERSION}/pseudonym", *words]).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()[:12]
