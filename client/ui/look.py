"""How pages look: theme, style, and the few pieces of HTML that they are made of. All text is escaped here."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import gradio as gr

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.blue,
    neutral_hue=gr.themes.colors.slate,
    font=["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_300")
CSS = """
:root { --ink: #1b1f24; --faint: #59636b; --rule: #d0d6db; --paper: #ffffff; --good: #00734f; --bad: #a33a00;
  --pld: #0b62b4; --rdp: #a85f00; --cap: #a83232; --bar: #0b62b4; }
.dark { --ink: #e7eaec; --faint: #a4aeb5; --rule: #3a4147; --paper: #15181b; --good: #3cc79a; --bad: #f0a132;
  --pld: #6db3f2; --rdp: #f0a132; --cap: #f28b82; --bar: #6db3f2; }
.gradio-container { width: 100%; overflow: clip !important; }
.gradio-container main { width: 100%; max-width: 78rem !important; margin: 0 auto; }
.said p[role=alert], .said p[role=status] { border-left: .25rem solid var(--bad); padding: .5rem .9rem; margin: .4rem 0;
  overflow-wrap: anywhere; }
.said p[role=status] { border-color: var(--good); }
.shown { overflow-x: auto; }
.shown table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.shown caption { text-align: left; color: var(--faint); padding: .2rem 0; }
.shown table th, .shown table td { text-align: left; padding: .3rem .9rem .3rem 0; vertical-align: baseline; border: 0;
  border-bottom: 1px solid var(--rule) !important; } .shown tbody th { font-weight: 600; }
.shown table, .shown thead, .shown tbody, .shown tr { border: 0 !important; }
.shown .figure svg { width: 100%; height: auto; } .shown .figure p { color: var(--faint); font-size: .9rem; }
.shown .large { font-size: 1.6rem; font-weight: 600; line-height: 1.25; } .shown .faint { color: var(--faint); }
.shown .number { font-size: 2.8rem; font-weight: 650; line-height: 1.1; font-variant-numeric: tabular-nums; margin: 0; }
.shown .code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85rem; overflow-wrap: anywhere; }
.shown dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; margin: .6rem 0; }
.shown dl div { border-top: 2px solid var(--rule); padding-top: .4rem; } .shown dt { color: var(--faint); }
.shown dd { margin: 0; } .shown dd b { display: block; font-size: 1.5rem; font-weight: 600; }
.shown th { overflow-wrap: break-word; word-break: normal; } .shown table.bars td:last-child { width: 60%; }
.shown .bars th, .shown .bars td { white-space: nowrap; } .shown p { margin: .35rem 0; }
.shown .bars i { display: block; height: .8rem; background: var(--bar); min-width: 2px; }
.shown .bars .bad i { background: var(--bad); } .shown .bars .faint i { background: var(--faint); }
.shown .tall { max-height: 30rem; overflow: auto; }
.shown .good { color: var(--good); } .shown .bad { color: var(--bad); }
.shown figure { margin: 0; } .shown figcaption { color: var(--faint); font-size: .9rem; padding: .4rem 0; }
.shown figure img { display: block; width: 100%; max-height: 36rem; object-fit: contain; background: #000; }
.shown table td.share { min-width: 6rem; white-space: nowrap; padding-left: .4rem; background-clip: padding-box;
  background: linear-gradient(color-mix(in srgb, #2a7de1 30%, transparent) 0 0) no-repeat left /
  calc(5.5rem * var(--share)) 100%; }
.shown .weights span { display: inline-block; padding: .1rem .45rem; margin: .15rem .15rem .15rem 0;
  background: color-mix(in srgb, #e08a00 var(--share), transparent); border: 1px solid var(--rule); }
.shown .blank { display: inline-block; width: 2.2rem; height: 2.2rem; background: #808080; vertical-align: middle;
  margin-right: .6rem; border: 1px solid var(--rule); }
.shown .empty { display: grid; place-items: center; min-height: 24rem; border: 1px dashed var(--rule);
  color: var(--faint); padding: 1rem; }
.banner { position: sticky; top: 0; z-index: 5; background: var(--paper); padding: .4rem 0 !important;
  border-bottom: 1px solid var(--rule); }
.banner .banner { position: static; border: 0; padding: 0 !important; }
.shown .figure { max-width: 54rem; } .shown th, .shown td { overflow-wrap: break-word; word-break: normal; }
.gradio-container:has(#ask-button[aria-selected=true]) .refresh { display: none; }
*:focus-visible { outline: 3px solid #2a7de1 !important; outline-offset: 2px; }
footer { display: none !important; }
"""


def shown(first: str = "") -> gr.Markdown:
    """A place for HTML that this module makes. Gradio's own HTML component asks for `eval`, which the page forbids."""
    return gr.Markdown(first, sanitize_html=False, latex_delimiters=[], elem_classes=["shown"], container=False)


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


def facts(rows: Sequence[tuple[str, str, str]]) -> str:
    """A few numbers side by side: what it is, the number, and what it means."""
    cells = "".join(
        f"<div><dt>{_flat(name)}</dt><dd><b>{_flat(value)}</b>{_flat(note)}</dd></div>" for name, value, note in rows
    )
    return f"<dl>{cells}</dl>"


def bars(caption: str, rows: Sequence[tuple[str, str, float, str]]) -> str:
    """A table of numbers with bars: name, number, length from 0 to 1, and `bad`, `faint` or nothing."""
    body = "".join(
        f'<tr class="{escape(kind)}"><th scope="row">{_flat(name)}</th><td>{_flat(text)}</td>'
        f'<td aria-hidden="true"><i style="width: {100 * min(max(length, 0.0), 1.0):.1f}%"></i></td></tr>'
        for name, text, length, kind in rows
    )
    return f'<div><table class="bars"><caption>{_flat(caption)}</caption><tbody>{body}</tbody></table></div>'


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, tall: bool = False) -> str:
    """A table whose first column names its rows; without heads, of names and values. A tall one scrolls by itself."""
    head = "".join(f'<th scope="col">{_flat(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{_flat(row[0])}</th>' + "".join(f"<td>{_lines(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    place = f'<div class="tall" tabindex="0" role="region" aria-label="{_flat(caption)}">' if tall else "<div>"
    return f"{place}<table><caption>{_flat(caption)}</caption>{top}<tbody>{body}</tbody></table></div>"


def figure(svg: str, caption: str) -> str:
    """A plot of `mumc_model.figures.to_svg` with what it shows."""
    # Markdown ends a block of HTML at an empty line.
    drawing = "\n".join(line for line in svg.splitlines() if line.strip())
    return f'<div class="figure">{drawing}<p>{_flat(caption)}</p></div>'


def heading(text: str) -> str:
    """A heading below that of the tab."""
    return f"<h3>{_flat(text)}</h3>"


def picture(png: bytes, alternative: str, caption: str) -> str:
    """A picture with what it shows; it lies in the page itself, so that no file of a patient can be fetched apart.

    Args:
        png: The picture as a PNG file.
        alternative: What a screen reader says in its place.
        caption: What stands below it.
    """
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    image = f'<img src="{source}" alt="{_flat(alternative)}">'
    return f"<div><figure>{image}<figcaption>{_flat(caption)}</figcaption></figure></div>"


def shares(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]], none: str) -> str:
    """A table of shares in percent, each with a bar behind it; `none` stands where there is no number."""
    head = "".join(f'<th scope="col">{_flat(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{_flat(name)}</th>' + "".join(_share(share, none) for share in values) + "</tr>"
        for name, values in rows
    )
    top = f"<caption>{_flat(caption)}</caption><thead><tr>{head}</tr></thead>"
    return f"<div><table>{top}<tbody>{body}</tbody></table></div>"


def weights(caption: str, words: Sequence[tuple[str, float]]) -> str:
    """Words, each with its share in percent, the weightier the darker."""
    most = max((share for _, share in words), default=0.0) or 1.0
    spans = " ".join(
        f'<span style="--share: {70 * share / most:.0f}%">{_flat(word)} {100 * share:.0f} %</span>'
        for word, share in words
    )
    return f'<div class="weights"><p class="faint">{_flat(caption)}</p><p>{spans}</p></div>'


def empty(text: str) -> str:
    """A frame where a picture is going to be."""
    return f'<div class="empty"><p>{_flat(text)}</p></div>'


def blank(text: str) -> str:
    """What was said of an evenly grey image, with that image beside it."""
    return f'<p><span class="blank" aria-hidden="true"></span>{_flat(text)}</p>'


def _share(share: float | None, none: str) -> str:
    if share is None:
        return f"<td>{_flat(none)}</td>"
    return f'<td class="share" style="--share: {share:.3f}">{100 * share:.1f} %</td>'


def _flat(text: str) -> str:
    return " ".join(escape(text).split())


def _lines(text: str) -> str:
    return "<br>".join(map(_flat, text.splitlines()))
