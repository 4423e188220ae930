"""A question asked at a site: of the site's own model, on a blank image beside it, and one line in the site's log.

The line names who asked, when, and what came back. Image and question stand in it as digests under a secret of the
site: whoever has both can show that they were asked about, and nobody can guess them from the log alone.
"""

import getpass
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.config import read_site_config
from client.keys import SiteKeys
from client.log import question_line, site_log_file
from mumc_model.answerer import Answerer
from mumc_model.conformal import RISK
from mumc_model.device import choose_device
from mumc_model.errors import DataError
from mumc_model.familiarity import LEVEL
from mumc_model.members import further_members
from mumc_model.reply import Reply
from protocol.errors import SigningError
from protocol.keyfiles import read_secret, write_secret

OWN_MODEL = "state/vqa"
"""Where a site's own fine-tuning keeps its model."""
SECRET = "questions.key"
"""In `keys/`: what digests of images and questions are keyed with."""
_SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of one question."""

    reply: Reply
    blank: Reply
    """The same question about an evenly grey image: what its words alone suggest."""
    line: int
    """Of the site's log, from 1, where the question stands."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `mumc-site ask --json` prints them and a page shows them."""
        return {**self.reply.to_dict(), "blank": self.blank.to_dict(), "line": self.line}


def ask_at(
    root: Path,
    image: Path,
    question: str,
    *,
    model: Path | None = None,
    question_type: str = "",
    risk: float = RISK,
    level: float = LEVEL,
    top: int = 5,
    user: str = "",
) -> Asked:
    """The reply of the site's own model, once it stands in the site's log; without a line there is no answer.

    Args:
        root: The site's folder.
        image: A PNG or JPEG file.
        question: In words.
        model: The answering model; without it, what the site's own fine-tuning left.
        question_type: Guessed from the words where it is not given.
        risk: Of a short list without the right answer.
        level: Share of questions like validation's that may be referred without need.
        top: How many answers to show.
        user: Who asks, for the log; without it, this process's user.

    Raises:
        SigningError: the site has no keys to sign its log with.
        ProtocolError: the log was tampered with, or the disk refuses.
        CheckpointError, ConfigError, DataError: there is no such model, the risk is none, the image cannot be read.
    """
    user = user or _local_user()
    device = choose_device(read_site_config(root).device)
    keys = SiteKeys.open(root)
    answerer, weights = opened_model(root, model)
    found = answerer.ask(
        image,
        question,
        device=device,
        method=answerer.method,
        top=top,
        question_type=question_type,
        risk=risk,
        level=level,
    )
    blank = (
        answerer.ask_blank(question, device=device, top=top, question_type=question_type) if answerer.texts else found
    )
    secret = _secret(keys)
    line = question_line(
        found,
        user=user,
        image=_digest(secret, b"image", image.read_bytes()),
        question=_digest(secret, b"question", question.encode()),
        model=weights,
    )
    entry = site_log_file(root).append(keys.signing(), line)
    return Asked(reply=found, blank=blank, line=entry["index"] + 1)


def _local_user() -> str:
    """The name of this process's user, or its number where the machine has no name for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def digests_of(root: Path, image: Path, question: str) -> tuple[str, str]:
    """The digests under which an image and a question stand in the site's log: for looking a question up in it.

    Raises:
        SigningError: the site has no keys, or nothing was ever asked there.
    """
    secret = read_secret(SiteKeys.open(root).folder / SECRET)
    return _digest(secret, b"image", image.read_bytes()), _digest(secret, b"question", question.encode())


def opened_model(root: Path, model: Path | None = None) -> tuple[Answerer, str]:
    """The model that answers at the site, opened once for as long as it stays as it is, and its weights' digest.

    Raises:
        DataError: there is none.
        CheckpointError: it cannot be read.
    """
    folder = model or root / OWN_MODEL
    if not (folder / "model.safetensors").is_file():
        raise DataError(f"there is no answering model in {folder}; make one with: mumc-site finetune {root}")
    return _opened(folder, _stamps(folder))


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and length of every file of a model and of its further members."""
    files = [path for part in (folder, *further_members(folder)) for path in sorted(part.glob("*")) if path.is_file()]
    return tuple((str(path), (found := path.stat()).st_mtime_ns, found.st_size) for path in files)


@lru_cache(maxsize=1)
def _opened(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> tuple[Answerer, str]:
    """The model in a folder, opened once for as long as it stays as it is, and the digest of its weights.

    Of an ensemble it is the digest of the digests of its members, one after the other.
    """
    found = [_file_digest(member / "model.safetensors") for member in (folder, *further_members(folder))]
    return Answerer.open(folder), found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _secret(keys: SiteKeys) -> bytes:
    path = keys.folder / SECRET
    if not path.is_file():
        # It is there already where another question was the first one.
        with suppress(SigningError):
            write_secret(path, secrets.token_bytes(_SECRET_BYTES))
    return read_secret(path)


def _digest(secret: bytes, kind: bytes, content: bytes) -> str:
    return hmac.new(secret, kind + b"\0" + content, hashlib.sha256).hexdigest()
