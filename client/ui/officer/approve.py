"""The third tab: a policy is drafted, shown, and signed with the officer's key, which the page never keeps.

Whoever opens the page can draft. What counts is the signature: the ledger takes none but its pinned officer's.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from client.errors import PageError
from client.privacy.approving import Draft, approve, draft
from client.privacy.ledger import Ledger
from client.ui.handling import Updates, faults_at
from client.ui.look import paragraph, said, shown, status, table
from client.ui.officer.key import Held, KeyFields, open_signer
from client.ui.officer.plan import Planned
from client.ui.officer.policy_fields import PolicyFields, policy_of
from protocol.signing import fingerprint, public_hex

FIRST = "No key has approved here yet. The first one that signs is pinned: no other can approve after it."
QUIET: dict[str, Any] = {"show_progress": "hidden"}


class ApproveTab:
    """The tab's fields and places, and what happens when they are used.

    Args:
        site: The site's folder.
    """

    def __init__(self, site: Path) -> None:
        self._site = site
        self.place, self.officer, self.drafted = said(), shown(), gr.State(None)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                gr.Markdown("### 1. What is approved", container=False)
                self.take = gr.Button("Take the numbers of the plan")
                self.fields = PolicyFields.build()
                self.show = gr.Button("Show what is signed", variant="primary")
            with gr.Column(scale=3, min_width=300):
                gr.Markdown("### 2. Look at it, and sign", container=False)
                self.paper = shown()
                self.keys = KeyFields.build()
                self.sign = gr.Button("Sign this", variant="stop", interactive=False)

    def connect(self, page: gr.Blocks, tab: gr.Tab, planned: gr.State) -> None:
        """Tie the handlers to what is pressed; `planned` holds the plan of the first tab."""
        tell, fields, drawn = faults_at(self.place), self.fields.all(), [self.drafted, self.paper, self.sign]
        for event in (page.load, tab.select):
            event(tell(self.look), None, [self.place, self.officer], **QUIET)
        self.take.click(tell(self.fill), [planned], [self.place, *self.fields.numbers()], **QUIET)
        self.show.click(tell(self.write), fields, [self.place, *drawn])
        given = [self.drafted, *self.keys.inputs(), *fields]
        pressed = self.sign.click(tell(self.put_in_force), given, [self.place, self.officer, *drawn])
        pressed.then(self.keys.forget, None, self.keys.outputs(), **QUIET)

    def look(self) -> Updates:
        """Say whose key can approve here."""
        pinned = Ledger.open(self._site).officer
        words = f"Only the key with the fingerprint {fingerprint(pinned)} can approve here." if pinned else FIRST
        return {self.officer: paragraph(words, "faint")}

    def fill(self, state: Planned) -> Updates:
        """Take what the first tab has planned."""
        if state.found is None:
            raise PageError("there is no plan yet; make one on the first tab")
        return self.fields.filled(state.found)

    def write(self, *values: Any) -> Updates:
        """Show what would be signed, and let it be signed."""
        found = draft(self._site, policy_of(values))
        return {
            self.drafted: found,
            self.paper: table("What is signed", [], list(found.rows())),
            self.sign: gr.update(interactive=True),
        }

    def put_in_force(self, found: Draft | None, held: Held | None, named: str, password: str, *values: Any) -> Updates:
        """Sign what was shown, if it is what the fields still say, and write it into the ledger."""
        if found is None:
            raise PageError("nothing is shown to be signed; press: Show what is signed")
        if replace(policy_of(values), approved=found.policy.approved) != found.policy:
            raise PageError("a field was changed after this was shown; press once more: Show what is signed")
        signer = open_signer(held, named, password)
        row = approve(self._site, found, signer)
        return {
            **self.look(),
            self.place: status(f"Approved: row {row} of the ledger, by the key {fingerprint(public_hex(signer))}"),
            self.drafted: None,
            self.paper: table("Signed, and in force", [], list(found.rows())),
            self.sign: gr.update(interactive=False),
        }
