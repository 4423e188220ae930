"""A question asked at a site: of the site's own model, on a blank image beside it, and one line in the site's log.

The line names who asked, when, and what came back. Image and question stand in it as digests under a secret of the
site: whoever has both can show that they were asked about, and nobody can guess them from the log alone.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.config import read_site_config
from client.keys import SiteKeys
from client.log import acting_user, question_line, site_log_file
from client.own_model import OpenedModel, folder_of_model, opened
from mumc_model.conformal import RISK
from mumc_model.device import choose_device
from mumc_model.reply import Reply
from protocol.errors import SigningError
from protocol.keyfiles import read_secret, write_secret

SECRET = "questions.key"
"""In `keys/`: what digests of images and questions are keyed with."""
_SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Answered:
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
    risk: float = RISK,
    top: int = 5,
    user: str = "",
) -> Answered:
    """The reply of the site's own model, once it stands in the site's log; without a line there is no answer.

    Args:
        root: The site's folder.
        image: A PNG or JPEG file.
        question: In words.
        model: The answering model; without it, what the site's own fine-tuning left.
        risk: Of a short list without the right answer.
        top: How many answers to show.
        user: Who asks, for the log; without it, this process's user.

    Raises:
        SigningError: the site has no keys to sign its log with.
        ProtocolError: the log was tampered with, or the disk refuses.
        CheckpointError, ConfigError, DataError: there is no such model, the risk is none, the image cannot be read.
    """
    user = user or acting_user()
    keys = SiteKeys.open(root)
    asked = opened(folder_of_model(root, model), with_digest=True)
    reply, blank = _replies(asked, image, question, device=read_site_config(root).device, risk=risk, top=top)
    secret = _secret(keys)
    line = question_line(
        reply,
        user=user,
        image=_digest(secret, b"image", image.read_bytes()),
        question=_digest(secret, b"question", question.encode()),
        model=asked.digest,
    )
    entry = site_log_file(root).append(keys.signing(), line)
    return Answered(reply=reply, blank=blank, line=entry["index"] + 1)


def _replies(
    asked: OpenedModel, image: Path, question: str, *, device: str, risk: float, top: int
) -> tuple[Reply, Reply]:
    """What the model says of the image, and of an evenly grey one; the same twice where it writes its answers."""
    model, where = asked.answerer, choose_device(device)
    reply = model.ask(image, question, device=where, method=model.method, top=top, risk=risk)
    return reply, model.ask_blank(question, device=where, top=top) if model.texts else reply


def digests_of(root: Path, image: Path, question: str) -> tuple[str, str]:
    """The digests under which an image and a question stand in the site's log: for looking a question up in it.

    Raises:
        SigningError: the site has no keys, or nothing was ever asked there.
    """
    secret = read_secret(SiteKeys.open(root).folder / SECRET)
    return _digest(secret, b"image", image.read_bytes()), _digest(secret, b"question", question.encode())


def _secret(keys: SiteKeys) -> bytes:
    path = keys.folder / SECRET
    if not path.is_file():
        # It is there already where another question was the first one.
        with suppress(SigningError):
            write_secret(path, secrets.token_bytes(_SECRET_BYTES))
    return read_secret(path)


def _digest(secret: bytes, kind: bytes, content: bytes) -> str:
    return hmac.new(secret, kind + b"\0" + content, hashlib.sha256).hexdigest()
