"""The page of all sites' cards: the skew is on it in words and shades, and what is not told is never a zero."""

import re
from html.parser import HTMLParser

import pytest

from protocol.datacard import PublicCard
from protocol.labels import TABLES
from protocol.signing import new_key
from protocol.suppression import WITHHELD
from server.datacard_page import in_short, to_html
from server.datacards import Held
from tests.protocol.told import FEW, LABELS, facts

KEY = new_key()
HIDDEN = {"ct": WITHHELD, "mr": WITHHELD}


def one(site, card):
    moment = "2026-11-27T03:00:00+00:00"
    return Held(site=site, card=PublicCard.sealed(card, site, "2026-11-26", moment, "", KEY))


def images(cells, count=100, **changes):
    """A site whose images are so by modality."""
    base = facts()
    organs = {"head": count} if type(count) is int else {}
    own = {"images by modality": cells, "images by organ": organs}
    tables = {name: LABELS[name] | told for name, told in own.items()}
    copies = dict.fromkeys(base["near copies"], FEW)
    counts = base["counts"] | {"images": count}
    return facts(counts=counts, tables=base["tables"] | tables, overlaps=[], **{"near copies": copies, **changes})


class Cells(HTMLParser):
    """The rows of the page by the heading above them: texts, and of shaded cells how strong they are."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.shades, self._heading, self._tag = {}, {}, "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        if tag == "tr":
            self.rows.setdefault(self._heading, []).append([])
        if tag in ("td", "th") and self._heading:
            self.rows[self._heading][-1].append("")
            if shade := re.search(r"/ ([\d.]+)\)", dict(attrs).get("style", "")):
                self.shades[self._heading, len(self.rows[self._heading]), len(self.rows[self._heading][-1])] = float(
                    shade[1]
                )

    def handle_data(self, data):
        if self._tag == "h2" and data.strip():
            self._heading = data
        elif self._tag in ("td", "th") and data.strip():
            self.rows[self._heading][-1][-1] += data

    def handle_endtag(self, tag):
        self._tag = ""


SITES = [
    one("east", images({"ct": 80, "x-ray": 20})),
    one("north", images({"x-ray": 100})),
    one("south", images(HIDDEN | {"x-ray": 50})),
    one("west", {"unit": "patient", "units": 1200}),
    Held(site="alone"),
    Held(site="broken", fault="not JSON"),
]


def test_counts_stand_beside_one_another_and_what_is_withheld_is_no_zero():
    rows = Cells(to_html("lung", SITES)).rows["Images by modality"]
    assert rows == [
        ["", "x-ray", "ct", "mr"],
        ["east", "20 (20 %)", "80 (80 %)", "0"],
        ["north", "100 (100 %)", "0", "0"],
        ["south", "50 (50 %)", "withheld", "withheld"],
        ["west", "no counts (privacy policy)"],
        ["alone", "no card"],
        ["broken", "damaged"],
        ["together, at least", "170", "80", "withheld"],
    ]


def test_a_cell_is_as_strong_as_its_share_is_large():
    shades = Cells(to_html("lung", SITES)).shades
    of = {place[1:]: shade for place, shade in shades.items() if place[0] == "Images by modality"}
    assert {(2, 2): 0.12, (2, 3): 0.48, (3, 2): 0.6, (4, 2): 0.3}.items() <= of.items()


def test_the_page_says_in_words_how_the_sites_differ_and_who_is_missing():
    said = list(in_short(SITES))
    assert said[:4] == [
        "4 of 6 enrolled sites have handed over a data card.",
        "None is here of alone: ask for state/card/public.json (mumc-site card SITE --approve).",
        "Not to be believed is the file of broken: ask for it again.",
        "Under a privacy policy, and therefore without counts: west.",
    ]
    assert "Images by modality, most: east ct (80 %), north x-ray (100 %), south x-ray (50 %)." in said


def test_of_many_sites_a_sentence_names_the_first_ones():
    said = list(in_short([one(f"site-{number:02d}", images({"ct": 100})) for number in range(20)]))
    assert any(line.endswith("site-11 ct (100 %) and 8 more.") for line in said)


def test_a_site_whose_total_is_not_told_has_no_shares():
    few = images(HIDDEN, FEW)
    page = Cells(to_html("lung", [one("small", few), SITES[0]]))
    assert page.rows["Images by modality"][1] == ["small", "0", "withheld", "withheld"]
    assert page.rows["How much each site has"][1][:3] == ["small", "50", FEW]


def test_a_site_that_knows_no_patients_and_a_small_share_are_told_as_such():
    counts = {name: value for name, value in facts()["counts"].items() if name != "patients"} | {"images": 2000}
    copies = dict.fromkeys(facts()["near copies"], FEW) | {"across patients": "not measured"}
    cells = images({"ct": 1990, "mr": 10}, 2000)
    card = cells | {"unit": "image", "counts": counts, "near copies": copies}
    rows = Cells(to_html("lung", [one("north", card)])).rows
    assert rows["How much each site has"][1][:3] == ["north", "unknown", "2,000"]
    assert rows["Images by modality"][1] == ["north", "1,990 (100 %)", "10 (under 1 %)"]


def test_the_page_needs_nothing_else_and_holds_no_script():
    page = to_html("<lung>", SITES)
    assert "<lung>" not in page
    assert "&lt;lung&gt;" in page
    for word in ("<script", "http:", "https:", "src=", "url("):
        assert word not in page


@pytest.mark.parametrize("sites", [[], [Held(site="alone")]])
def test_without_any_card_there_is_a_page_that_says_so(sites):
    page = to_html("lung", sites)
    assert f"0 of {len(sites)} enrolled sites have handed over a data card." in page
    assert not any(name.capitalize() in Cells(page).rows for name in TABLES)
