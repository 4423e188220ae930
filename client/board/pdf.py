"""The board's page as a PDF: the same headings, sentences, tables and picture. The same page gives the same bytes.

The letters are DejaVu Sans, which comes with matplotlib; where a letter is in none of its fonts, a box stands for it.
"""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from fpdf import FPDF
from fpdf.enums import Align, TableBordersLayout, XPos, YPos
from fpdf.fonts import FontFace
from fpdf.prefs import ViewerPreferences

from client.board.document import Document, Section, Table

FONT, REST = "DejaVu", "LastResort"
INK, FAINT, RULE, CARD, WHITE = (27, 31, 36), (90, 98, 106), (203, 208, 212), (241, 243, 244), (255, 255, 255)
MARGIN_MM, GAP_MM, INNER_MM = 14, 3.2, 3.0
SIZE_PT, SMALL_PT, LINE = 8.6, 7.9, 1.4
PT = 25.4 / 72
FACT_WIDTHS = (34, 66)
SCORE_WIDTHS = (23, 9, 8, 19, 19, 22)


def to_pdf(document: Document, svg: bytes) -> bytes:
    """The whole page; `svg` is the picture with its letters as outlines, or empty."""
    paper = _Paper(document)
    paper.title_and_findings()
    for section in document.sections:
        paper.section(section, svg)
    return bytes(paper.output())


class _Paper(FPDF):
    """A4, numbered at the foot."""

    def __init__(self, document: Document) -> None:
        super().__init__(format="A4")
        self._document = document
        self.set_title(document.title)
        self.set_lang("en")
        self.viewer_preferences = ViewerPreferences(display_doc_title=True)
        self.set_creator("fedmumc")
        # The clock's date would make two pages of the same facts differ; the first of 1970 stands for none.
        self.set_creation_date(datetime.fromisoformat(document.day or "1970-01-01").replace(tzinfo=UTC))
        self.set_margin(MARGIN_MM)
        self.set_auto_page_break(True, MARGIN_MM + 4)
        self._fonts()
        self.add_page()

    def footer(self) -> None:
        """What the page is, and its number."""
        self.set_y(-MARGIN_MM)
        self._pen(SMALL_PT, FAINT)
        self.cell(self.epw - 20, 4, self._document.title[:100])
        self.cell(20, 4, f"{self.page_no()} of {{nb}}", align=Align.R)

    def title_and_findings(self) -> None:
        """The head of the page."""
        self._pen(15, INK, "B")
        self.start_section(self._document.title)
        self._text(self._document.title)
        self._pen(SIZE_PT, FAINT)
        self.ln(0.6)
        for line in self._document.subtitle:
            self._text(line)
        self.ln(GAP_MM)
        self._findings()

    def section(self, section: Section, svg: bytes) -> None:
        """A heading and what stands under it; a heading never stands alone at the foot of a page."""
        self.ln(GAP_MM)
        if self.will_page_break(14):
            self.add_page()
        self._pen(11, INK, "B")
        self.start_section(section.title, level=1)
        self._text(section.title)
        self.ln(0.8)
        if section.figure and svg:
            self.image(BytesIO(svg), w=self.epw * 0.86)
            self._note(section.figure)
            self.ln(GAP_MM / 2)
        if section.table:
            self._table(section.table)
        for sentence in section.sentences:
            self._note(sentence)
        for point in section.points:
            self._point(point)

    def _findings(self) -> None:
        """The sentences that matter most, on a card; its height is measured first, so that it lies under the words."""
        self._pen(SIZE_PT + 0.4, INK)
        width, height = self.epw - 2 * INNER_MM, self._line()
        talls = [
            float(self.multi_cell(width, height, text, align=Align.L, dry_run=True, output="HEIGHT"))  # type: ignore[arg-type]
            for text in self._document.findings
        ]
        tall = sum(talls) + 0.9 * (len(talls) - 1) + 2 * INNER_MM
        self.set_fill_color(*CARD)
        self.rect(self.l_margin, self.y, self.epw, tall, style="F", round_corners=True, corner_radius=1.5)
        end = self.y + tall
        self.y += INNER_MM
        for text in self._document.findings:
            self.set_x(self.l_margin + INNER_MM)
            self.multi_cell(width, height, text, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.ln(0.9)
        self.y = end

    def _table(self, table: Table) -> None:
        self._pen(SMALL_PT, FAINT)
        self._text(table.caption)
        self._pen(SMALL_PT, INK)
        self.set_draw_color(*RULE)
        self.set_fill_color(*WHITE)
        self.set_line_width(0.15)
        heads = FontFace(emphasis="", color=FAINT)
        with self.table(
            col_widths=SCORE_WIDTHS if table.heads else FACT_WIDTHS,
            first_row_as_headings=bool(table.heads),
            text_align=Align.L,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            headings_style=heads,
            line_height=self._line(),
            padding=(0.7, 1.5, 0.7, 0),
        ) as drawn:
            if table.heads:
                drawn.row(table.heads)
            for head, *cells in table.rows:
                row = drawn.row()
                row.cell(head, style=FontFace(emphasis="BOLD"))
                for cell in cells:
                    row.cell(cell)

    def _note(self, text: str) -> None:
        self._pen(SMALL_PT, FAINT)
        self.ln(0.8)
        self._text(text)

    def _point(self, text: str) -> None:
        self._pen(SIZE_PT, INK)
        height = self._line()
        if self.will_page_break(2 * height):
            self.add_page()
        self.cell(4, height, "\N{BULLET}")
        self.multi_cell(self.epw - 4, height, text, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(0.5)

    def _text(self, text: str) -> None:
        self.multi_cell(self.epw, self._line(), text, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def _line(self) -> float:
        return float(self.font_size_pt * PT * LINE)

    def _pen(self, size: float, colour: tuple[int, int, int], emphasis: str = "") -> None:
        self.set_font(FONT, emphasis, size)
        self.set_text_color(*colour)

    def _fonts(self) -> None:
        folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
        self.add_font(FONT, "", folder / "DejaVuSans.ttf")
        self.add_font(FONT, "B", folder / "DejaVuSans-Bold.ttf")
        known = self.fonts[FONT.lower()].cmap  # type: ignore[union-attr]
        letters = {ord(letter) for text in self._document.texts() for letter in text}
        # That font knows all of Unicode, and takes seconds to open.
        if letters - set(known) and (rest := folder / "LastResortHE-Regular.ttf").is_file():
            self.add_font(REST, "", rest)
            self.set_fallback_fonts([REST], exact_match=False)
