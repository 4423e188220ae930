"""The page as headings, sentences, tables and a picture: HTML and PDF are made from the same one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; the first cell of a row is its head. Pairs of a head and a value have no line of heads."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    figure: str = ""
    """What the picture shows, for who cannot see it; empty for no picture."""
    table: Table | None = None
    sentences: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """The whole page."""

    title: str
    day: str
    """On which it was made, as 2026-11-26; empty where it must not matter."""
    subtitle: tuple[str, ...]
    findings: tuple[str, ...]
    sections: tuple[Section, ...]

    def texts(self) -> list[str]:
        """Every text on the page, in reading order."""
        found = [self.title, *self.subtitle, *self.findings]
        for section in self.sections:
            table = section.table
            cells = (table.caption, *table.heads, *(cell for row in table.rows for cell in row)) if table else ()
            found += [section.title, *cells, *section.sentences, *section.points]
        return [text for text in found if text]
