"""The board's page as one HTML file that needs nothing else and prints on two sheets."""

from html import escape

from client.board.document import Document, Section
from mumc_model.page import bullets, figure, section, style, table, whole

CSS = style(
    54,
    """h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } p { margin: .4rem 0; max-width: 46rem; }
h1, li, td { overflow-wrap: anywhere; }
table { font-size: .88rem; } th, td { padding: .36rem .9rem .36rem 0; } tbody th { min-width: 8rem; }
caption { text-align: left; color: var(--faint); padding-bottom: .2rem; }
.pairs tbody th { width: 19rem; }
.note { color: var(--faint); font-size: .9rem; } figure { margin: .8rem 0 1.2rem; max-width: 46rem; }
.points { padding-left: 1.1rem; max-width: 50rem; margin: .3rem 0; } .points li { margin: .25rem 0; }
@page { size: A4; margin: 14mm; }
@media print { :root { --ink: #000; --faint: #444; --rule: #bbb; --paper: #fff; --card: #f1f3f4; }
  html { font-size: 11.5px; } body { max-width: none; padding: 0; line-height: 1.38; }
  h2 { margin: 1rem 0 .3rem; } th, td { padding: .2rem .8rem .2rem 0; } .findings { margin: .7rem 0; }
  h2, caption { break-after: avoid; } tr, figure, li { break-inside: avoid; }
  .pairs { break-inside: avoid; } figure { max-width: 40rem; margin: .4rem 0; }
  .findings { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
""",
    light={"local": "#c77700", "federated": "#0b62b4"},
    dark={"local": "#f0a132", "federated": "#5aa9f0"},
)


def to_html(document: Document, svg: str) -> str:
    """The whole page; `svg` is the picture, or empty."""
    subtitle = "".join(f'<p class="faint">{escape(line)}</p>' for line in document.subtitle)
    top = (
        f"<header><h1>{escape(document.title)}</h1>{subtitle}"
        f'<div class="findings" role="region" aria-label="In short">{bullets(document.findings)}</div></header>\n'
    )
    body = "".join(_section(part, svg) for part in document.sections)
    return whole(document.title, CSS, f"<main>\n{top}{body}</main>\n")


def _section(part: Section, svg: str) -> str:
    shown = [figure(svg, part.figure) if part.figure and svg else ""]
    if part.table:
        shown.append(
            table(
                part.table.heads, part.table.rows, caption=part.table.caption, kind="" if part.table.heads else "pairs"
            )
        )
    shown += [f'<p class="note">{escape(text)}</p>\n' for text in part.sentences]
    if part.points:
        shown.append(bullets(part.points, "points"))
    return section(part.title, *shown)
