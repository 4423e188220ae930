"""The third tab: a policy is drafted, shown, and signed with the officer's key, which the page never keeps.

Whoever opens the page can draft. What counts is the signature: the ledger takes none but its pinned officer's.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from client.errors import PageError
from client.privacy.approving import Draft, approve, draft, numbers_for
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import now
from client.privacy.policy import PrivacyPolicy
from client.ui.handling import Updates, number, told, whole
from client.ui.look import paragraph, said, shown, status, table
from client.ui.officer.asked import typed_number
from client.ui.officer.key import Held, KeyFields, open_signer
from client.ui.officer.plan import Planned
from protocol.signing import fingerprint, public_hex

FIRST = "No key has approved here yet. The first one that signs is pinned: no other can approve after it."


def build(page: gr.Blocks, tab: gr.Tab, site: Path, planned: gr.State) -> None:
    """The tab of the site's folder."""
    place, officer, drafted = said(), shown(), gr.State(None)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.Markdown("### 1. What is approved", container=False)
            take = gr.Button("Take the numbers of the plan")
            with gr.Row():
                epsilon = gr.Number(None, label="Cap", info="Epsilon of the site's life-time, by an RDP filter.")
                units = gr.Number(None, label="Patients", info="Public and rounded.", precision=0)
                noise = gr.Number(0, label="Least noise multiplier", info="0 leaves it to the cap.")
                delta = gr.Textbox("1e-6", label="Delta of the policy", info="At most 1 / (10 patients).", max_lines=1)
            with gr.Row():
                unit = gr.Radio(["patient", "record"], value="patient", label="What is protected")
                expires = gr.Textbox("", label="Last day", info="As 2027-12-31; empty for none.", max_lines=1)
            with gr.Row():
                who = gr.Textbox("", label="Name of who signs", max_lines=1)
                role = gr.Textbox("privacy officer", label="Role", max_lines=1)
            reason = gr.Textbox("", label="Reason", info="Why this budget is right.", max_lines=1)
            show = gr.Button("Show what is signed", variant="primary")
        with gr.Column(scale=3, min_width=300):
            gr.Markdown("### 2. Look at it, and sign", container=False)
            paper = shown()
            keys = KeyFields.build()
            sign = gr.Button("Sign this", variant="stop", interactive=False)
    fields: list[gr.Component] = [epsilon, units, noise, delta, unit, expires, who, role, reason]

    @told(place)
    def look() -> Updates:
        return {officer: paragraph(_officer(site), "faint")}

    @told(place)
    def fill(state: Planned) -> Updates:
        if state.found is None:
            raise PageError("there is no plan yet; make one on the first tab")
        found = numbers_for(state.found)
        return {
            epsilon: found["epsilon"],
            units: found["units"],
            noise: found["noise_multiplier"],
            delta: f"{found['delta']:g}",
        }

    @told(place)
    def write(*values: Any) -> Updates:
        found = draft(site, _policy(*values))
        return {drafted: found, paper: table("What is signed", [], list(found.rows())), sign: _able(True)}

    @told(place)
    def put_in_force(found: Draft | None, held: Held | None, named: str, password: str, *values: Any) -> Updates:
        if found is None:
            raise PageError("nothing is shown to be signed; press: Show what is signed")
        if replace(_policy(*values), approved=found.policy.approved) != found.policy:
            raise PageError("a field was changed after this was shown; press once more: Show what is signed")
        signer = open_signer(held, named, password)
        row = approve(site, found, signer)
        return {
            place: status(f"Approved: row {row} of the ledger, by the key {fingerprint(public_hex(signer))}"),
            officer: paragraph(_officer(site), "faint"),
            drafted: None,
            paper: table("Signed, and in force", [], list(found.rows())),
            sign: _able(False),
        }

    quiet: dict[str, Any] = {"show_progress": "hidden"}
    for event in (page.load, tab.select):
        event(look, None, [place, officer], **quiet)
    take.click(fill, [planned], [place, epsilon, units, noise, delta], **quiet)
    show.click(write, fields, [place, drafted, paper, sign])
    pressed = sign.click(put_in_force, [drafted, *keys.inputs(), *fields], [place, officer, drafted, paper, sign])
    pressed.then(keys.forget, None, keys.outputs(), **quiet)


def _policy(*values: Any) -> PrivacyPolicy:
    epsilon, units, noise, delta, unit, expires, who, role, reason = values
    return PrivacyPolicy(
        unit=unit,
        units=whole(units, "patients", least=1),
        epsilon=number(epsilon, "cap"),
        delta=typed_number(delta, "delta"),
        noise_multiplier=number(noise, "least noise multiplier", least=0),
        expires=(expires or "").strip(),
        officer=(who or "").strip(),
        role=(role or "").strip(),
        reason=(reason or "").strip(),
        approved=now(),
    )


def _officer(site: Path) -> str:
    pinned = Ledger.open(site).officer
    return f"Only the key with the fingerprint {fingerprint(pinned)} can approve here." if pinned else FIRST


def _able(yes: bool) -> dict[str, Any]:
    return gr.update(interactive=yes)
