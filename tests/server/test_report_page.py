"""The page of a run: it shows what the journal says, needs nothing else, and takes nothing a site says for its own."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from server.history import History
from server.journal import Journal
from server.report_page import to_html, write_reports
from server.report_plots import draw_plots
from server.report_strip import draw_strip, letters_of, place_of
from tests.server.histories import config, histories, record

ALL = ("a", "b", "c")
BAD = "<script>alert(1)</script> & \"'"


def history(records, rounds=2, **changes):
    return History(run_id="trial", records=records, config=config(rounds, "finetune"), **changes)


class Tags(HTMLParser):
    """Which elements are open at the end, and all that were opened with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def places(strip, columns):
    """What the picture shows: for each row the kinds of its columns, read back from the rectangles."""
    boxes = []
    for element in ElementTree.fromstring(strip).iter():
        if element.tag == "rect":
            boxes.append((float(element.get("y")), float(element.get("x")), float(element.get("width")), element))
    rows = sorted({y for y, *_ in boxes})
    left = min(x for _, x, _, _ in boxes)
    width = (max(x + w for _, x, w, _ in boxes) - left) / columns
    shown = []
    for row in rows:
        kinds = [""] * columns
        for y, x, wide, element in boxes:
            if y == row:
                for column in range(round((x - left) / width), round((x + wide - left) / width)):
                    kinds[column] = element.get("class")
        shown.append(kinds)
    return shown


@settings(deadline=None, max_examples=100)
@given(histories())
def test_the_strip_shows_every_site_in_every_round_as_the_journal_has_it(history):
    expected = [[place_of(record, site).kind for record in history.records] for site in history.sites]
    assert places(draw_strip(history), len(history.records)) == expected


def test_what_a_site_was_in_a_round_has_five_forms_and_a_void_attempt_one_more():
    mixed = record(
        1,
        merged=("a", "b"),
        late={"b": 2},
        refused={"c": "no_answer", "d": "norm_too_large", "f": "policy_hours", "g": "flower_2"},
    )
    kinds = {site: place_of(mixed, site) for site in "abcdefg"}
    assert {site: place.kind for site, place in kinds.items()} == {
        "a": "merged",
        "b": "late",
        "c": "gone",
        "d": "refused",
        "e": "away",
        "f": "refused",
        "g": "gone",
    }
    assert kinds["b"].code == "2"
    assert kinds["d"].code == "norm_too_large"
    assert place_of(record(1, refused={"c": "no_answer"}), "a").kind == "idle"
    assert place_of(record(1, refused={"c": "no_answer"}), "c").kind == "gone"


def test_the_most_frequent_code_is_the_first_letter():
    records = [record(n, merged=("a",), refused={"b": "not_finite", "c": "no_answer"}) for n in (1, 2)]
    records.append(record(3, merged=("a", "c"), refused={"b": "stale"}))
    assert letters_of(history(records)) == {"no_answer": "a", "not_finite": "b", "stale": "c"}


def test_nothing_a_site_says_is_taken_for_the_page_itself():
    lost = record(1, merged=("a",), refused={"b": "bad"}, reasons={"b": BAD}, losses={"total": 1.0, BAD: 1.0})
    run = history([lost], metrics={"a": {"accuracy": 0.5, BAD: 1.0}}, refused={"c": "bad"}, reasons={"c": BAD})
    page = to_html(run, draw_plots(run))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 2
    assert Tags(page).open == []


def test_the_page_needs_no_other_file_and_no_program():
    run = history([record(n, merged=ALL, epsilon={"a": 0.5 * n}) for n in (1, 2)], metrics={"a": {"accuracy": 0.5}})
    page = to_html(run, draw_plots(run))
    found = Tags(page)
    assert found.open == []
    assert {tag for tag, _ in found.seen} & {"script", "link", "img", "iframe", "object", "image"} == set()
    assert all(not attrs.get("href", "#").startswith(("http", "//")) for _, attrs in found.seen)
    assert not re.search(r"url\((?!#)|@import|javascript:", page)
    assert not [name for _, attrs in found.seen for name in attrs if name.startswith("on")]


@pytest.mark.parametrize(
    ("records", "rounds", "badge"),
    [
        ([record(1, merged=ALL)], 1, "complete"),
        ([record(1, merged=ALL), record(2, merged=("a", "b"), refused={"c": "no_answer"})], 2, "finished, with losses"),
        ([record(1), record(1, merged=ALL, attempt=2)], 1, "finished, with losses"),
        ([record(1, merged=ALL)], 2, "finished, with losses"),
    ],
)
def test_only_a_run_that_lost_nothing_is_called_complete(records, rounds, badge):
    run = History(run_id="trial", records=records, config=config(rounds))
    assert f">{badge}</span>" in to_html(run, {})
    assert ">no result yet</span>" in to_html(replace(run, finished=False), {})


def test_plots_are_those_that_the_run_has_numbers_for():
    masked = record(1, merged=ALL, norms={}, secagg={"threshold": 2})
    assert set(draw_plots(history([masked]))) == {"loss", "cost"}
    assert set(draw_plots(history([record(1, merged=ALL)]))) == {"loss", "norms", "cost"}
    private = record(1, merged=ALL, losses={}, norms={}, epsilon={"a": 1.0})
    assert set(draw_plots(history([private]))) == {"cost", "epsilon"}
    assert draw_plots(history([])) == {}


def test_a_refused_update_is_a_cross_with_its_name_and_one_of_a_void_attempt_is_none():
    lost = record(2, merged=("a",), refused={"b": "norm_too_large"}, norms={"a": 1.0, "b": 90.0})
    void = record(3, refused={"b": "no_answer"}, norms={"a": 1.0})
    norms = draw_plots(history([record(1, merged=("a", "b")), lost, void]))["norms"]
    assert re.findall(r"<text[^>]*> (\w+)</text>", norms) == ["b"]
    assert "mathdefault" not in norms
    assert ">refused</text>" in norms
    assert ">refused</text>" not in draw_plots(history([void, record(3, merged=("a",), attempt=2)]))["norms"]


def test_the_same_run_gives_the_same_bytes():
    run = history([record(n, merged=ALL, refused={"d": "stale"}, norms={"a": 1.0, "d": 90.0}) for n in range(1, 5)])
    assert to_html(run, draw_plots(run)) == to_html(run, draw_plots(run))


def test_a_run_of_thirty_sites_and_a_hundred_rounds_has_a_page_below_a_megabyte(tmp_path):
    sites = [f"hospital-{n:02d}" for n in range(30)]
    journal = Journal(tmp_path / "journal.jsonl")
    for n in range(1, 101):
        inside = [site for place, site in enumerate(sites) if (n * 7 + place) % 11]
        lost = {site: "no_answer" for site in sites if site not in inside}
        journal.append(record(n, merged=inside, refused=lost, expected=30, epsilon=dict.fromkeys(inside, 0.1 * n)))
    page = write_reports(tmp_path)
    assert page.stat().st_size < 2**20
    text = page.read_text(encoding="utf-8")
    assert Tags(text).open == []
    assert text.count('class="gone"') > 100


def test_the_command_writes_both_reports_of_a_run_at_work_and_again_when_more_is_known(call, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(record(1, merged=ALL))
    assert call("report", tmp_path).strip() == str(tmp_path / "report.html")
    assert "1 rounds merged" in (tmp_path / "report.md").read_text()
    journal.append(record(2, merged=("a", "b"), refused={"c": "no_answer"}, reasons={"c": "nothing came in time"}))
    call("report", tmp_path)
    assert "| c | 1 of 2 | round 2: no_answer: nothing came in time |" in (tmp_path / "report.md").read_text()
    assert "nothing came in time" in (tmp_path / "report.html").read_text()


def test_a_folder_without_a_run_is_named(call, tmp_path):
    assert "neither journal.jsonl nor result.json" in call("report", tmp_path, expect=2)
