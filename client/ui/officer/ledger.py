"""The second tab: what the site's ledger says, as `mumc-privacy ledger` does."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from client.privacy.errors import LedgerError
from client.privacy.ledger import Ledger
from client.privacy.ledger_view import BUDGET, CHARGE_HEADS, budget_lines, charge_cells, summary
from client.privacy.plan_site import PlanAtSite
from client.ui.handling import Updates, faults_at
from client.ui.look import alert, bars, paragraph, said, shown, table
from client.ui.officer.plan import Planned
from protocol.signing import fingerprint


def build(page: gr.Blocks, tab: gr.Tab, site: Path, planned: gr.State) -> None:
    """The tab of the site's folder. It is read anew whenever the tab is opened."""
    place, budget, chain = said(), shown(), shown()
    with gr.Row():
        again = gr.Button("Read again", size="md")
        export = gr.DownloadButton("Export as JSON", interactive=False, size="md")
    charges = shown()

    @faults_at(place)
    def show(state: Planned) -> Updates:
        try:
            found = summary(Ledger.open(site))
        except LedgerError as error:
            # Nothing of a ledger that cannot be trusted stays on the page.
            gone = {budget: "", charges: "", export: gr.update(value=None, interactive=False)}
            nothing = paragraph("Not verified: nothing may be charged", "large bad")
            return {place: alert(str(error)), chain: nothing, **gone}
        return {
            chain: "".join(_chain(found)),
            budget: "".join(_budget(found, state.here)),
            charges: _charges(found),
            export: gr.update(value=write_json(found, "ledger.json", indent=2), interactive=True),
        }

    for event in (page.load, tab.select, again.click):
        event(show, [planned], [place, chain, budget, charges, export], show_progress="hidden")


def write_json(values: dict[str, Any], name: str, *, indent: int) -> str:
    """The path of a file to download, which no other replaces; it lies in the page's own folder and goes with it."""
    path = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / name
    path.write_text(json.dumps(values, indent=indent, allow_nan=False) + "\n", encoding="utf-8")
    return str(path)


def _chain(found: dict[str, Any]) -> Iterator[str]:
    """Whether the rows can be trusted, and what to compare elsewhere."""
    yield paragraph(f"Verified: {found['rows']:,} rows, each of them signed and chained to the one before", "good")
    yield paragraph(f"Head of the chain: {found['head']}", "code faint")
    if found["officer_key"]:
        yield paragraph(
            f"Fingerprint of the officer who may approve: {fingerprint(found['officer_key'])}", "code faint"
        )


def _budget(found: dict[str, Any], here: PlanAtSite | str | None) -> Iterator[str]:
    if found["policy"] is None:
        yield paragraph("No budget is approved", "large bad")
        yield paragraph(found["policy_problem"])
        return
    policy, epsilon = found["policy"], found["epsilon"]
    cap = epsilon["cap"]
    yield paragraph(f"{epsilon['remaining']:.3f} left", "number")
    yield paragraph(
        f"of epsilon {cap:.3f}, the life-time budget of each of about {policy['units']:,} {policy['unit']}s", "faint"
    )
    rows = [(name.replace("_", " "), f"{epsilon[name]:.3f}", epsilon[name] / cap, _shade(name)) for name in BUDGET]
    if isinstance(here, PlanAtSite) and here.epsilon_after is not None:
        after = here.epsilon_after
        rows.append(("planned, with all before", f"{after:.3f}", after / cap, "bad" if after > cap else "faint"))
    yield bars("Budget in epsilon, by RDP; planned is what the first tab says", rows)
    for line in budget_lines(found):
        yield paragraph(line, "faint")


def _shade(name: str) -> str:
    return "faint" if name == "cap" else ""


def _charges(found: dict[str, Any]) -> str:
    """Every entry, the newest first, as it is what an officer looks for."""
    rows = [charge_cells(charge) for charge in reversed(found["charges"])]
    if not rows:
        return paragraph("Nothing was ever charged.")
    return table(
        f"All {len(rows):,} charges, the newest first; epsilon is that after each", CHARGE_HEADS, rows, tall=True
    )
