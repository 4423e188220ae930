"""What a server tells a site as statistics, true or not: what it hears back, and what the site keeps of it."""

import json
import shutil

import pytest

from client.datacard.card import build
from client.datacard.stamp import FOLDER
from client.datacard.write import write_card
from client.log import site_log_file
from client.statistics import own_card, own_numbers
from protocol.labels import TABLES
from protocol.messages import STATISTICS, Report
from protocol.statistics import folded
from server.statistics_run import read_statistics
from tests.client.counted import Counted, Liar, shorten

NONE = {name: dict.fromkeys(labels, 0) for name, labels in TABLES.items()}
WRONG = ({"counts": NONE}, {"sites": 3}, {"made": "2020-01-01"})
"""Statistics that cannot be of the sum of four, or are not what came first."""


@pytest.fixture
def published(counted_folder):
    return read_statistics(counted_folder / "runs" / "counts")


def told(liar, published, site="ash", order_of="counts", **changes):
    plain = json.loads(json.dumps(published.to_dict())) | changes
    return liar.ask(site, liar.order(STATISTICS, plain, run_id=order_of, round=3))


def file_of(folder, name="federation.json"):
    return folder / "ash" / FOLDER / name


def kinds(folder):
    """What the server can know of the log by its head: how many lines there are, and all that is not the site's."""
    return [(line["kind"], line.get("code")) for line in site_log_file(folder / "ash").entries()]


def test_whatever_is_told_after_the_statistics_gets_the_same_receipt_and_changes_nothing(published, counted_folder):
    liar, before, lines = Liar(counted_folder), file_of(counted_folder).read_bytes(), kinds(counted_folder)
    receipt = told(liar, published)
    assert isinstance(receipt, Report)
    for changes in WRONG:
        assert told(liar, published, **changes) == receipt, changes
    assert kinds(counted_folder) == lines + [("order", None), ("reply", None)] * 4
    assert file_of(counted_folder).read_bytes() == before
    assert "not believed" in (counted_folder / "ash" / "state" / "site.log").read_text()


def test_no_lie_about_a_cell_tells_the_server_how_many_the_site_has(counting_folder, tmp_path):
    """A search by halves over a made-up count heard, before, at which one the site refuses: its own."""
    lost = {("ash", 2, 1, STATISTICS)}
    published = Counted(counting_folder, lost=lost).published
    own = folded(own_numbers(own_card(counting_folder / "ash")))["questions by split"]["test"].count // 10 * 10
    heard = []
    for number, said in enumerate((own - 10, own)):
        here = shutil.copytree(counting_folder, tmp_path / str(number))
        counts = {**{name: {} for name in TABLES}, "questions by split": {"test": said}}
        heard.append((told(Liar(here), published, counts=counts), kinds(here)))
        kept, refused = file_of(here), file_of(here, "federation-refused.json")
        assert (kept.is_file(), refused.is_file()) == (said == own, said != own)
        assert len((kept if said == own else refused).read_bytes()) > 100
        assert told(Liar(here), published) == heard[0][0], "nor what comes after a lie"
        assert kept.is_file() == (said == own), "one word a run is judged, the first"
    assert heard[0] == heard[1]
    assert isinstance(heard[0][0], Report)


def test_a_site_whose_card_has_changed_since_keeps_what_it_is_told(counting_folder):
    published = Counted(counting_folder, lost={("ash", 2, 1, STATISTICS)}).published
    shorten(counting_folder / "ash", 1)
    write_card(counting_folder / "ash", build(counting_folder / "ash"))
    assert isinstance(told(Liar(counting_folder), published, counts=NONE), Report)
    assert file_of(counting_folder).is_file(), "nothing is known here against them"


def test_what_are_no_statistics_of_a_sum_that_the_site_opened_are_refused_for_their_form(published, counted_folder):
    liar, before = Liar(counted_folder), file_of(counted_folder).read_bytes()
    for changes in (
        {"labels": "0" * 64},
        {"counts": {**NONE, "images by organ": {"Dr. X": 10}}},
        {"counts": {**NONE, "images by organ": {"head": 1}}},
        {"counts": {**NONE, "images by organ": {"head": 10**12}}},
        {"made": "٢٠٢٦-99-99"},
        {"made": "2026-02-30"},
    ):
        assert told(liar, published, **changes).code == "bad_message", changes
    assert told(liar, published, order_of="other").code == "bad_message"
    assert told(liar, published, order_of="other", run_id="other").code == "statistics_unknown"
    assert file_of(counted_folder).read_bytes() == before


def test_statistics_of_a_sum_that_a_site_was_not_in_are_not_kept(counting_folder):
    played = Counted(counting_folder, lost={("dogwood", 1, 1, "mask")})
    assert told(Liar(counting_folder), played.published, "dogwood").code == "statistics_unknown"
    assert not (counting_folder / "dogwood" / FOLDER / "federation.json").exists()
