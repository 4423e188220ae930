"""How pages look: theme, style, and the few pieces of HTML that they are made of. All text is escaped here."""

from collections.abc import Sequence
from html import escape

import gradio as gr

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.blue,
    neutral_hue=gr.themes.colors.slate,
    font=["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
)
CSS = """
:root { --ink: #1b1f24; --faint: #59636b; --rule: #d0d6db; --paper: #ffffff; --good: #00734f; --bad: #a33a00; }
.dark { --ink: #e7eaec; --faint: #a4aeb5; --rule: #3a4147; --paper: #15181b; --good: #3cc79a; --bad: #f0a132; }
.gradio-container { width: 100%; }
.gradio-container main { width: 100%; max-width: 78rem !important; margin: 0 auto; }
.said p[role=alert], .said p[role=status] { border-left: .25rem solid var(--bad); padding: .5rem .9rem; margin: .4rem 0;
  overflow-wrap: anywhere; }
.said p[role=status] { border-color: var(--good); }
.shown { overflow-x: auto; }
.shown table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.shown caption { text-align: left; color: var(--faint); padding: .2rem 0; }
.shown th, .shown td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: baseline; } .shown tbody th { font-weight: 600; }
.shown .figure svg { width: 100%; height: auto; } .shown .figure p { color: var(--faint); font-size: .9rem; }
.shown .large { font-size: 1.6rem; font-weight: 600; line-height: 1.25; } .shown .faint { color: var(--faint); }
.shown .good { color: var(--good); } .shown .bad { color: var(--bad); }
*:focus-visible { outline: 3px solid #2a7de1 !important; outline-offset: 2px; }
footer { display: none !important; }
"""


def shown() -> gr.Markdown:
    """A place for HTML that this module makes. Gradio's own HTML component asks for `eval`, which the page forbids."""
    return gr.Markdown(sanitize_html=False, latex_delimiters=[], elem_classes=["shown"], container=False)


def said() -> gr.Markdown:
    """A place for what the page has to say about what was just typed: empty, `alert` or `status`."""
    return gr.Markdown(sanitize_html=False, latex_delimiters=[], elem_classes=["said"], container=False)


def alert(text: str) -> str:
    """A fault with its remedy; a screen reader speaks it at once."""
    return f'<p role="alert">{_flat(text)}</p>'


def status(text: str) -> str:
    """What was done."""
    return f'<p role="status">{_flat(text)}</p>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, `large`, `faint`, `good` or `bad` where that is said."""
    return f'<p class="{escape(kind)}">{_flat(text)}</p>' if kind else f"<p>{_flat(text)}</p>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows; without heads, of names and values."""
    head = "".join(f'<th scope="col">{_flat(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{_flat(row[0])}</th>' + "".join(f"<td>{_flat(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f"<div><table><caption>{_flat(caption)}</caption>{top}<tbody>{body}</tbody></table></div>"


def figure(svg: str, caption: str) -> str:
    """A plot of `mumc_model.figures.to_svg` with what it shows."""
    # Markdown ends a block of HTML at an empty line.
    drawing = "\n".join(line for line in svg.splitlines() if line.strip())
    return f'<div class="figure">{drawing}<p>{_flat(caption)}</p></div>'


def _flat(text: str) -> str:
    return " ".join(escape(text).split())
