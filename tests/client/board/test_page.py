"""HTML and PDF say the same, all of it, and the same facts give the same bytes."""

import dataclasses
import re
import subprocess
from html.parser import HTMLParser

import pytest

from client.board.facts import Comparison, NotMeasured
from client.board.figure import for_page, for_paper
from client.board.page import to_html
from client.board.pdf import to_pdf
from client.board.words import NEVER_MEASURED, to_document
from client.board.write import write_board
from tests.client.board.conftest import group, squeezed


class Reader(HTMLParser):
    """The words of a page, and its elements with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.words, self.elements = [], []
        self._style = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data):
        if not self._style:
            self.words.append(data)


def html_of(facts):
    return to_html(to_document(facts), for_page(facts.comparison))


def pdf_of(facts):
    return to_pdf(to_document(facts), for_paper(facts.comparison))


def test_every_text_of_the_document_stands_in_both(facts, pdf_text):
    page, paper = squeezed("".join(Reader(html_of(facts)).words)), pdf_text(pdf_of(facts))
    texts = to_document(facts).texts()
    assert len(texts) > 60
    assert [text for text in texts if squeezed(text) not in page] == []
    assert [text for text in texts if squeezed(text) not in paper] == []


def test_every_number_of_the_facts_is_on_the_page(facts):
    page = "".join(Reader(html_of(facts)).words)
    for number in (
        "62.0 (57.0 to 67.0)", "50.0 (45.0 to 55.0)", "+12.0 (+5.0 to +19.0)", "211", "83", "137", "74", "3.22",
        "8.00", "1 in 1,000,000", "812.0 MB", "1.6 GB", "31.4 h", "10.99 kWh (by a figure)", "3.41 EUR", "17",
        "1,440 min (24.0 h), entered by the hospital and not measured: 1,200 readings x 3 min x 40 %",
    ):  # fmt: skip
        assert number in page


def test_not_measured_is_printed_where_the_number_would_stand_and_listed_with_its_reason(facts):
    document = to_document(facts)
    effort = dict(document.sections[2].table.rows)
    assert effort["Cost of staff"] == effort["Cost in all"] == "not measured"
    assert document.sections[-1].points == (
        "Cost of staff: not measured (not entered: staff_hours).",
        "Cost in all: not measured (a part of it was not measured).",
        *NEVER_MEASURED,
    )


def test_nothing_on_the_page_is_ever_blank(facts):
    missing = NotMeasured("it", "nobody looked")
    blanked = dataclasses.replace(
        facts,
        comparison=missing,
        guess=missing,
        privacy=dataclasses.replace(facts.privacy, kind="unknown", epsilon=missing, cap=missing, delta=missing),
        effort=dataclasses.replace(
            facts.effort, rounds=missing, bytes_up=missing, bytes_down=missing, hours=missing, kwh=missing, counted=""
        ),
        costs=dataclasses.replace(facts.costs, electricity=missing, minutes_saved=missing, minutes_by=""),
    )
    document = to_document(blanked)
    cells = [cell for section in document.sections if section.table for row in section.table.rows for cell in row]
    assert all(cells)
    assert cells.count("not measured") == 12
    assert to_pdf(document, b"").startswith(b"%PDF")


def test_one_file_that_needs_nothing_else_and_runs_nothing(facts):
    page = html_of(facts)
    elements = Reader(page).elements
    assert not {"script", "link", "img", "iframe", "form"} & {tag for tag, _ in elements}
    assert re.findall(r"(?:https?:)?//|@import|url\((?!#)", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert "<b>" not in page
    assert "Hôpital Łódź Ω &lt;b&gt;" in page


def test_a_screen_reader_finds_headings_captions_and_what_the_picture_shows(facts):
    elements = Reader(html_of(facts)).elements
    tags = [tag for tag, _ in elements]
    assert ("html", {"lang": "en"}) in elements
    assert (tags.count("main"), tags.count("h1"), tags.count("h2")) == (1, 1, 5)
    assert tags.count("caption") == tags.count("table") == 3
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in elements if tag == "th")
    (picture,) = [attributes for tag, attributes in elements if tag == "svg"]
    assert picture["role"] == "img"
    assert "federated 62.0 (57.0 to 67.0)" in picture["aria-label"]


def test_a_pdf_names_its_title_and_language_and_numbers_its_pages(facts, pdf_text, tmp_path):
    content = pdf_of(facts)
    (tmp_path / "board.pdf").write_bytes(content)
    told = subprocess.run(["pdfinfo", "-enc", "UTF-8", tmp_path / "board.pdf"], capture_output=True, check=True).stdout
    assert re.search(r"Title: +Was joining worth it\? Hôpital Łódź Ω <b>\n", told.decode())
    assert b"/Lang (en)" in content
    assert b"/DisplayDocTitle true" in content
    assert re.search(r"1of[12]", pdf_text(content))


def test_the_same_facts_give_the_same_bytes_whenever_they_are_written(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    first = [path.read_bytes() for path in write_board(facts, tmp_path / "a")]
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert [path.read_bytes() for path in write_board(facts, tmp_path / "b")] == first
    assert b"D:20261126000000" in first[1]


@pytest.mark.parametrize("name", ["日本語病院 🏥", "مستشفى", "Ağrı Örnek", "x" * 120])  # noqa: RUF001
def test_any_name_prints(facts, name, pdf_text):
    odd = dataclasses.replace(facts, name=name)
    assert name in html_of(odd)
    paper = pdf_text(pdf_of(odd))
    assert squeezed(name) in paper or name == "مستشفى"  # read from right to left


def test_a_page_of_many_groups_has_them_all(facts, pdf_text):
    many = tuple(group(f"type {n:02}", (0.5, 0.4, 0.6), (0.5, 0.4, 0.6), (0, -0.1, 0.1)) for n in range(60))
    found = dataclasses.replace(facts, comparison=dataclasses.replace(facts.comparison, question_types=many))
    paper = pdf_text(pdf_of(found))
    assert all(f"type{n:02}100" in paper for n in range(60))


def test_a_simulation_says_so_and_does_not_speak_of_sending_the_page_on(facts):
    simulated = dataclasses.replace(facts, simulated="A simulation with synthetic images.")
    page = html_of(simulated)
    assert "A simulation with synthetic images." in page
    assert "not to be sent on" not in page
    assert "not to be sent on" in html_of(facts)


def test_there_is_no_picture_of_nothing(facts):
    missing = NotMeasured("accuracy", "nobody looked")
    overall = dataclasses.replace(facts.comparison.overall, local=missing, federated=missing, gap=missing)
    found = Comparison(overall=overall, answer_types=(), question_types=(), smallest=10)
    assert (for_page(found), for_paper(found)) == ("", b"")
