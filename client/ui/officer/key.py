"""The officer's key on its way through the page: still encrypted, in memory, until it signs once; then forgotten."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import PageError
from client.ui.handling import Updates, faults_at
from client.ui.look import said, status
from protocol.keyfiles import MAX_SECRET_BYTES, erase
from protocol.signing import open_private_key, read_private_key

HELD_S = 900
"""After so long an uploaded key that signed nothing is forgotten."""
ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
KEY = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----")
"""How every private key in PEM begins; one that is not encrypted is of no use here, and must not lie about either."""

Held = tuple[str, bytes]
"""The name and content of an uploaded file."""


@dataclass(frozen=True)
class KeyFields:
    """Where the key and its password are given."""

    upload: gr.UploadButton
    held: gr.State
    named: gr.Textbox
    password: gr.Textbox
    place: gr.Markdown

    @classmethod
    def build(cls) -> "KeyFields":
        """The fields, with what an upload does."""
        upload = gr.UploadButton("Choose the key file", type="filepath", file_count="single")
        place, held = said(), gr.State(None, time_to_live=HELD_S)
        named = gr.Textbox("", label="Or its path on this machine", max_lines=1)
        password = gr.Textbox("", label="Password of the key", type="password", max_lines=1)

        @faults_at(place)
        def take(path: str) -> Updates:
            found = _taken(Path(path))
            said_so = f"{found[0]} is held in memory, encrypted as it is, until it has signed; no file of it is kept"
            return {held: found, place: status(said_so)}

        upload.upload(take, [upload], [place, held], show_progress="hidden")
        return cls(upload, held, named, password, place)

    def inputs(self) -> list[gr.Component]:
        """What `open_signer` asks for."""
        return [self.held, self.named, self.password]

    def outputs(self) -> list[gr.Component]:
        """What `forget` empties."""
        return [self.place, self.held, self.password, self.upload]

    def forget(self) -> Updates:
        """Nothing of the key stays on the page."""
        return {self.place: "", self.held: None, self.password: "", self.upload: None}


def open_signer(held: Held | None, named: str, password: str) -> Ed25519PrivateKey:
    """The officer's key.

    Raises:
        PageError: no key or no password is given.
        SigningError: it is no key, or the password is wrong.
    """
    if not password:
        raise PageError("the password of the key is empty; type it")
    if held is not None:
        return open_private_key(held[1], password.encode(), held[0])
    path = Path(named.strip()) if named and named.strip() else None
    if path is None:
        raise PageError("no key is given; choose the file that `mumc-privacy keygen` wrote, or name it")
    return read_private_key(path, password.encode())


def _taken(path: Path) -> Held:
    """The upload's name and content; its file is gone, unless it is no key: then it is left as it was."""
    if not path.resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve()):
        raise PageError("this is no upload; choose the key file once more")
    with path.open("rb") as file:
        content = file.read(MAX_SECRET_BYTES)
    # A request that is made by hand may name anything in the folder, what others have uploaded too.
    if KEY.match(content):
        erase(path)
    if not content.startswith(ENCRYPTED):
        raise PageError(f"{path.name} is no encrypted private key; choose the file that `mumc-privacy keygen` wrote")
    return path.name, content
