"""The fourth tab: made-up patients through the installed trainers, and what they betray beside what is claimed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from client.privacy.cli_audit import GradSample
from client.ui.handling import Updates, faults_at, whole
from client.ui.look import bars, paragraph, said, shown, table
from client.ui.officer.ledger import write_json
from client.ui.officer.plan_fields import typed_number

if TYPE_CHECKING:
    from client.privacy.audit import AuditResult

TRAINERS = [
    ("private pre-training", "pretrain"),
    ("private fine-tuning", "finetune"),
    ("release of an accuracy", "metrics"),
]
MOST_CANARIES = 100_000
"""More would keep the page busy for long; the command takes any number."""
WHAT = (
    "Made-up patients go through the program that is installed here, half of them in its data by the toss of a coin. "
    "What its steps betray about them stands beside what the accountant claims. No real patient is read."
)


def build() -> None:
    """The tab; it needs no site."""
    gr.Markdown(WHAT, container=False)
    with gr.Row():
        trainer = gr.Radio(TRAINERS, value="pretrain", label="Whose steps")
        way = gr.Radio(list(get_args(GradSample)), value="hooks", label="Way of clipping", info="A release clips none.")
        canaries = gr.Textbox("", label="Made-up patients", info="Empty: as many as take seconds.", max_lines=1)
    with gr.Row():
        run = gr.Button("Run the audit", variant="primary")
        export = gr.DownloadButton("Export as JSON", interactive=False)
    place, verdict = said(), shown(paragraph("Nothing was audited since this page was opened.", "faint"))
    verdict.min_height = "8rem"  # Where the progress is shown.

    @faults_at(place)
    def measure(whose: Any, clipping: Any, count: str, progress: Any = gr.Progress()) -> Updates:  # noqa: B008
        asked = _count(count)
        from client.privacy.audit import audit  # Torch is not loaded for a plan.

        result = audit(
            trainer=whose,
            grad_sample=clipping,
            canaries=asked,
            on_progress=lambda done, total: progress((done, total), unit="steps"),
        )
        return {
            verdict: "".join(_verdict(result)),
            export: gr.update(value=write_json(result.to_dict(), "AUDIT.json", indent=1), interactive=True),
        }

    run.click(measure, [trainer, way, canaries], [place, verdict, export], show_progress_on=[verdict])


def _count(text: str) -> int | None:
    if not (text or "").strip():
        return None
    return whole(typed_number(text, "made-up patients", "10000"), "made-up patients", most=MOST_CANARIES)


def _verdict(result: "AuditResult") -> Iterator[str]:
    """Passed or not, the bounds beside the claim, and every check in words."""
    from client.privacy.audit_text import rows

    yield paragraph("Passed" if result.passed else "Failed", f"number {'good' if result.passed else 'bad'}")
    least, wide, claim = result.lower_bound, result.one_run_lower_bound, result.claimed_epsilon
    most = max(least, wide, claim)
    yield bars(
        f"Epsilon at delta {result.delta:g}: no bound may be above the claim",
        [
            ("claimed by the accountant", f"{claim:.2f}", claim / most, "faint"),
            (f"at least, {100 * result.confidence:g} % sure", f"{least:.2f}", least / most, _kind(least, claim)),
            (
                f"at least, whatever the noise, {100 * result.one_run_confidence:g} % sure",
                f"{wide:.2f}",
                wide / most,
                _kind(wide, claim),
            ),
        ],
    )
    yield table("In plain words", [], list(rows(result)))


def _kind(bound: float, claim: float) -> str:
    return "bad" if bound > claim else ""
