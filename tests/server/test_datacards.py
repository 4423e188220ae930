"""What the server takes in of a site's data, and what it refuses; `mumc-server datacard` as it is typed."""

import json
import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from client.joining import rotate
from client.keys import SiteKeys
from protocol.datacard import MAX_CHARS, PublicCard
from protocol.errors import MessageError, SignatureError
from protocol.signing import new_key, public_hex
from server.datacards import PAGE, held, take_in
from server.errors import DataCardError, FolderError
from server.home import Home
from server.joining import admit, publish
from server.log import server_log
from server.log_check import check_server_log
from server.status import look, tables
from tests.federation import enrol, found
from tests.federation import take_in as join
from tests.protocol.told import facts
from tests.server.link import Link

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return found(tmp_path, "north", "south")


def paper(home: Home, name="north", *, hours=0, card=None, key=None, server=None):
    """What the site of that name signs so many hours before noon."""
    return PublicCard.sealed(
        card or facts(),
        name,
        "2026-11-26",
        (NOW - timedelta(hours=hours)).isoformat(),
        public_hex(home.signer()) if server is None else server,
        key or SiteKeys.open(home.root.parent / name).signing(),
    )


def written(home: Home, card: PublicCard):
    path = home.root.parent / "public.json"
    path.write_text(card.text())
    return path


def cards(home: Home):
    return {one.site: one.card for one in held(home) if one.card}


def lines(home: Home):
    return [(line["site"], line["what"]) for line in server_log(home).entries() if line["kind"] == "datacard"]


def test_a_card_of_an_enrolled_site_is_kept_and_stands_in_the_log(home):
    card = paper(home)
    assert take_in(home, card, NOW)
    assert cards(home) == {"north": card}
    (line,) = server_log(home).entries()
    assert (line["kind"], line["site"], line["digest"]) == ("datacard", "north", card.digest())
    assert "120" not in json.dumps({name: line[name] for name in ("kind", "what", "site", "approved")})
    assert check_server_log(home).whole
    assert stat.S_IMODE(home.data_cards.stat().st_mode) == 0o700


def test_the_newest_counts_and_the_same_one_twice_is_one(home):
    older, newer = paper(home, hours=2), paper(home, hours=1, card=facts(overlaps=[]))
    assert [take_in(home, older, NOW), take_in(home, older, NOW), take_in(home, newer, NOW)] == [True, False, True]
    assert cards(home) == {"north": newer}
    with pytest.raises(DataCardError, match=r"was approved on 2026-11-27T10:00:00\+00:00, and the one that is here on"):
        take_in(home, older, NOW)
    with pytest.raises(DataCardError, match="the newest counts"):
        take_in(home, paper(home, hours=1), NOW)
    assert cards(home) == {"north": newer}
    assert lines(home) == [("north", "taken")] * 2


def test_moments_are_compared_across_time_zones(home):
    key = SiteKeys.open(home.root.parent / "north").signing()
    east = PublicCard.sealed(facts(), "north", "2026-11-26", "2026-11-27T11:00:00+14:00", "", key)
    assert take_in(home, paper(home, hours=12), NOW)
    with pytest.raises(DataCardError, match="the newest counts"):
        take_in(home, east, NOW)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda home: paper(home, "west", key=new_key()), FolderError, "no site is called 'west'"),
        (lambda home: paper(home, key=new_key()), MessageError, "signed by another key"),
        (lambda home: replace(paper(home), site="south"), MessageError, "signed by another key"),
        (lambda home: replace(paper(home), card=facts(overlaps=[])), SignatureError, "changed after signing"),
        (lambda home: paper(home, server="ab" * 32), DataCardError, "was approved for another federation"),
        (lambda home: paper(home, hours=-25), DataCardError, "one of the two clocks is wrong"),
    ],
)
def test_what_is_refused_leaves_no_trace(home, make, error, says):
    with pytest.raises(error, match=says):
        take_in(home, make(home), NOW)
    assert not home.data_cards.exists()
    assert server_log(home).entries() == []


def test_a_card_from_before_the_site_joined_is_taken_and_so_is_one_of_the_next_hours(home):
    assert take_in(home, paper(home, server=""), NOW)
    assert take_in(home, paper(home, hours=-23), NOW)


def test_after_a_change_of_keys_the_card_stays_and_the_old_key_brings_no_other(home, tmp_path):
    card, next_old = paper(home, hours=3), paper(home, hours=2)
    take_in(home, card, NOW)
    join(home, tmp_path / "north")
    _, enrolment = rotate(tmp_path / "north", 10)
    publish(home, admit(home, enrolment))
    assert cards(home) == {"north": card}
    with pytest.raises(DataCardError, match="signed by a key from before it changed its keys"):
        take_in(home, next_old, NOW)
    newer = paper(home, hours=1, key=SiteKeys.open(tmp_path / "north").next.signing())
    assert take_in(home, newer, NOW)
    assert cards(home) == {"north": newer}


def test_the_card_of_a_site_that_is_shut_out_goes_and_does_not_come_back(call, home, tmp_path):
    for name in ("north", "south"):
        call("datacard", "add", home.root, written(home, paper(home, name)))
    card = cards(home)["north"]
    page = home.data_cards / PAGE
    assert "north" in page.read_text()
    call("revoke", home.root, "north", "--reason", "end")
    assert list(cards(home)) == ["south"]
    assert sorted(path.name for path in home.data_cards.iterdir()) == [PAGE, "south.json"]
    assert "north" not in page.read_text()
    assert lines(home) == [("north", "taken"), ("south", "taken"), ("north", "removed")]
    assert check_server_log(home).whole
    with pytest.raises(DataCardError, match=r"north was revoked on .*: end; its data card stays out"):
        take_in(home, card, NOW)
    shutil.rmtree(tmp_path / "north")
    enrol(home, tmp_path / "north")
    assert list(cards(home)) == ["south"]
    with pytest.raises(DataCardError, match="from before it changed its keys"):
        take_in(home, card, NOW)


def test_a_card_that_was_exchanged_or_lost_at_the_server_is_found(home):
    old, new = paper(home, hours=2), paper(home, hours=1)
    take_in(home, old, NOW)
    before = (home.data_cards / "north.json").read_bytes()
    take_in(home, new, NOW)
    (home.data_cards / "north.json").write_bytes(before)
    found = check_server_log(home)
    assert [(gap.line, gap.cause) for gap in found.breaks] == [
        (2, "the data card of north that is here is not the one that the log has last")
    ]
    assert "mumc-server datacard add" in found.breaks[0].remedy
    (home.data_cards / "north.json").unlink()
    assert not check_server_log(home).whole
    assert take_in(home, new, NOW)
    assert check_server_log(home).whole
    shutil.copy(home.data_cards / "north.json", home.data_cards / "south.json")
    assert [one.fault for one in held(home) if one.fault] != []
    assert not check_server_log(home).whole


def test_a_disk_that_refuses_leaves_the_earlier_card_and_the_same_file_may_be_added_again(home, monkeypatch):
    old, new = paper(home, hours=2), paper(home, hours=1)
    take_in(home, old, NOW)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("server.datacards.write_atomically", refuse)
        with pytest.raises(OSError, match="No space"):
            take_in(home, new, NOW)
    assert cards(home) == {"north": old}
    assert take_in(home, new, NOW)
    assert cards(home) == {"north": new}
    assert check_server_log(home).whole


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b" " * (MAX_CHARS + 1)])
def test_a_damaged_file_costs_only_its_site_and_is_replaced(call, home, content):
    for name in ("north", "south"):
        take_in(home, paper(home, name, hours=1), NOW)
    (home.data_cards / "north.json").write_bytes(content)
    assert list(cards(home)) == ["south"]
    assert "damaged" in call("datacard", "list", home.root)
    call("datacard", "page", home.root)
    assert "Not to be believed is the file of north" in (home.data_cards / PAGE).read_text()
    assert take_in(home, paper(home), NOW)
    assert list(cards(home)) == ["north", "south"]


def test_add_says_what_came_of_it_and_list_shows_who_has_none(call, home):
    path = written(home, paper(home))
    said = call("datacard", "add", home.root, path)
    assert said.splitlines() == [
        "the data card of north, approved 2026-11-27 12:00, is taken in; sites with a card: 1",
        f"all of them beside one another: {home.data_cards / PAGE}",
    ]
    assert "is here already" in call("datacard", "add", home.root, path)
    listed = [line.split() for line in call("datacard", "list", home.root).splitlines()]
    assert listed[0] == ["site", "images", "captions", "questions", "patients", "counted", "on"]
    assert listed[1:] == [["north", "120", "110", "200", "50", "2026-11-26"], ["south", "no", "card"]]
    plain = json.loads(call("datacard", "list", home.root, "--json"))
    assert [(one["site"], one["card"] and one["card"]["card"]) for one in plain] == [
        ("north", facts()),
        ("south", None),
    ]


@pytest.mark.parametrize("content", ["{", '{"kind": "join"}', "x" * (MAX_CHARS + 1), None])
def test_add_refuses_other_files_in_one_line(call, home, content):
    path = home.root.parent / "file"
    if content is not None:
        path.write_text(content)
    error = call("datacard", "add", home.root, path, expect=2)
    assert error.startswith("mumc-server: ")
    assert error.count("\n") == 1
    assert not home.data_cards.exists()


def test_show_prints_all_that_a_card_tells_and_withheld_is_no_zero(call, home):
    call("datacard", "add", home.root, written(home, paper(home)))
    said = call("datacard", "show", home.root, "north")
    rows = [line.rsplit(maxsplit=1) for line in said.splitlines() if line.strip()]
    for row in (["ct", "80"], ["mr", "withheld"], ["x-ray", "withheld"], ["images here", "20"], ["patients", "50"]):
        assert row in rows
    assert "5, 9, 14" in said
    assert "angiography" not in said
    error = call("datacard", "show", home.root, "south", expect=2)
    assert f"mumc-server datacard list {home.root} shows which are here" in error


def test_under_a_privacy_policy_the_officers_number_is_all_there_is(call, home):
    card = paper(home, card={"unit": "patient", "units": 300})
    call("datacard", "add", home.root, written(home, card))
    assert "300 units (privacy policy)" in call("datacard", "list", home.root)
    assert "300" in call("datacard", "show", home.root, "north")


def test_status_and_the_log_tell_of_cards_and_of_sites_without(call, home):
    take_in(home, paper(home), NOW)
    seen = look(home, Link())
    assert [(site.name, site.card) for site in seen.sites] == [("north", "2026-11-26"), ("south", "none")]
    assert tables(seen)[0].columns[3].header == "data card"
    assert "north data card taken, approved 2026-11-27T12:00:00" in call("log", "show", home.root)


def test_a_list_of_no_sites_says_what_comes_next(call, tmp_path):
    home = found(tmp_path)
    assert call("datacard", "list", home.root) == f"no site yet; next: mumc-server enroll {home.root} FILE\n"
