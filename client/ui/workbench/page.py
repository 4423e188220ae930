"""The workbench of a site: ask about studies, see what was asked, how training went, and what left the site."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from client.config import read_site_config
from client.own_model import OWN_MODEL, Stamps, model_files, stamps_of
from client.ui.handling import MODEL_LANE, Updates, faults_at
from client.ui.look import paragraph, said, shown, table
from client.ui.workbench.ask import AskTab
from client.ui.workbench.federation import federation_html
from client.ui.workbench.records import LAST, entries_of, question_rows
from client.ui.workbench.training import training_html

EVERY_S = 10
BANNER = "Research software, no diagnosis. Studies stay on this machine; every question stands in the site's log."
WATCHED = (
    "site.yaml",
    "state/log.jsonl",
    "state/evaluation/evaluation.json",
    "state/supernode.log",
    "state/uncharged.jsonl",
    "state/privacy/ledger.jsonl",
)
"""What the tabs read of the site's folder, beside the files of the model that answers."""


def workbench(root: Path, model: Path | None) -> gr.Blocks:
    """The page of the site in this folder, with this answering model or the site's own."""
    name = read_site_config(root).name
    page: gr.Blocks
    with gr.Blocks(title=f"Workbench of {name}", analytics_enabled=False) as page:
        gr.Markdown(f"# Workbench of {name}")
        gr.Markdown(f"**{BANNER}**", elem_classes=["banner"])
        with gr.Tab("Ask", elem_id="ask"):
            tab = AskTab(root, model)
        with gr.Tab("Questions asked"):
            asked = _Place(lambda: questions_html(root))
        with gr.Tab("Training"):
            training = _Place(lambda: training_html(root, model))
        with gr.Tab("Federation"):
            federation = _Place(lambda: federation_html(root))
        places = [asked, training, federation]
        _refresh(root, model, places)
        begun = page.load(faults_at(tab.said)(tab.begin), None, [tab.said, tab.study, tab.ready])
        begun.then(faults_at(tab.ready)(tab.open_model), None, [tab.ready], concurrency_id=MODEL_LANE)
        tab.answered.then(asked.handler, None, asked.outputs, show_progress="hidden")
        for place in places:
            page.load(place.handler, None, place.outputs, show_progress="hidden")
    return page


class _Place:
    """What one tab shows of the site's folder, and what was wrong with it."""

    def __init__(self, content: Callable[[], str]) -> None:
        self._content = content
        self._said, self._shown = said(), shown()
        self.outputs = [self._said, self._shown]
        self.handler = faults_at(self._said)(self._read)

    def _read(self) -> Updates:
        return {self._shown: self._content()}


def questions_html(root: Path) -> str:
    """The last questions, as `mumc-site log show` prints them.

    Raises:
        ProtocolError: the log cannot be read.
    """
    rows = question_rows(entries_of(root))
    if not rows:
        return paragraph("Nothing was asked yet.")
    kept = (
        "The log keeps a question and its study as digests under a secret of the site, so that nobody reads a patient "
        f"out of it. The last {LAST} are shown; mumc-site log show prints all, and mumc-site log verify checks them."
    )
    return table("The last questions, the newest first", ["line", "what the log says"], rows) + paragraph(kept, "faint")


def _refresh(root: Path, model: Path | None, places: list[_Place]) -> None:
    """A button, and a timer that reads again only what has changed, so that nobody is disturbed."""
    with gr.Row(elem_classes=["refresh"]):
        again = gr.Button("Refresh", scale=0)
        ticking = gr.Checkbox(value=True, label=f"Look for news every {EVERY_S} seconds", container=False)
    timer, seen = gr.Timer(EVERY_S), gr.State(None)

    def look(before: Stamps | None) -> Updates:
        now = stamps(root, model)
        if now == before:
            return {seen: gr.skip()}
        found: Updates = {seen: now}
        for place in places:
            found |= place.handler()
        return found

    outputs = [seen, *(part for place in places for part in place.outputs)]
    timer.tick(look, [seen], outputs, show_progress="hidden", trigger_mode="once")
    again.click(lambda: look(None), None, outputs, show_progress="hidden")
    ticking.input(lambda on: gr.Timer(active=on), [ticking], [timer], show_progress="hidden")


def stamps(root: Path, model: Path | None = None) -> Stamps:
    """When each file that the page reads was last changed, and how long it is.

    The files of the model are among them: an evaluation adds what this site measured to them.
    """
    return stamps_of([*(root / name for name in WATCHED), *model_files(model or root / OWN_MODEL)])
