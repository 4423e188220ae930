"""What every HTML page of the house has in common: one self-contained file, light and dark, without a script."""

from collections.abc import Mapping, Sequence
from html import escape

LIGHT = {"ink": "#1b1f24", "faint": "#667078", "rule": "#d5dade", "paper": "#fcfcfb", "card": "#f1f3f4"}
DARK = {"ink": "#e7eaec", "faint": "#9aa4ab", "rule": "#3a4147", "paper": "#15181b", "card": "#1e2327"}
_RULES = """* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: %grem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; } .faint, figcaption { color: var(--faint); }
.findings { background: var(--card); border-radius: .5rem; padding: .9rem 1.25rem; margin: 1.25rem 0; }
.findings ul { margin: 0; padding: 0; list-style: none; } .findings li + li { margin-top: .35rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%%; }
th, td { text-align: left; border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums;
  vertical-align: baseline; }
thead th { color: var(--faint); font-weight: 500; } tbody th { font-weight: 600; }
figure svg { width: 100%%; height: auto; display: block; } svg text { font-family: inherit; }
figcaption { font-size: .9rem; margin-top: .5rem; max-width: 46rem; }
"""


def style(width_rem: float, rules: str, light: Mapping[str, str] = {}, dark: Mapping[str, str] = {}) -> str:
    """The page's CSS: the colours of the house and the page's own, the rules of the house, then the page's own."""
    return (
        f":root {{ color-scheme: light dark; {_variables({**LIGHT, **light})} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables({**DARK, **dark})} }} }}\n"
        f"{_RULES % width_rem}{rules}"
    )


def whole(title: str, css: str, *body: str) -> str:
    """The page: one file that needs nothing else."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{css}</style>\n</head>\n'
        f"<body>\n{''.join(body)}</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; nothing where nothing does."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>\n" if content else ""


def figure(svg: str, caption: str) -> str:
    """A picture with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def table(heads: Sequence[str] | None, rows: Sequence[Sequence[str]], *, caption: str = "", kind: str = "") -> str:
    """A table whose rows begin with their head; nothing where there are no rows."""
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    ]
    return table_of(heads, lines, caption=caption, kind=kind) if lines else ""


def table_of(heads: Sequence[str] | None, rows: Sequence[str], *, caption: str = "", kind: str = "") -> str:
    """A table of rows that are HTML already, with a line of heads or without."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads or ())
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    sort = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{sort}>{named}{top}<tbody>{"".join(rows)}</tbody></table></div>\n'


def bullets(items: Sequence[str], kind: str = "") -> str:
    """A list of sentences."""
    sort = f' class="{kind}"' if kind else ""
    return f"<ul{sort}>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>\n"


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
