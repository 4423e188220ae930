"""The data card in `mumc-site check`, in the words of the site's door."""

import json

import pytest

from client.datacard.card import build
from client.datacard.write import write_card
from client.gate import CARD_APPROVED, CARD_REASONS, STATISTICS_PRIVACY, STATISTICS_SMALLEST
from protocol.messages import STATISTICS


def test_a_card_that_is_required_and_missing_keeps_the_site_from_taking_part(site):
    site.limit(card="required")
    found = site.find("card")
    assert found.status == "fail"
    assert found.what == CARD_REASONS["none"].partition("; ")[0]
    assert found.remedy == f"look at the data and make its card: mumc-site card {site.root}"


def test_a_card_of_the_data_as_it_is_passes_and_one_of_other_data_does_not(site):
    site.limit(card="required")
    write_card(site.root, build(site.root))
    found = site.find("card")
    assert (found.status, found.what) == ("pass", "of the data as it is")
    with (site.root / "captions.jsonl").open("a") as file:
        file.write("\n")
    found = site.find("card")
    assert (found.status, found.what) == ("fail", CARD_REASONS["stale"].partition("; ")[0])


def test_where_none_is_required_none_is_missed_and_an_old_one_is_a_warning(site):
    found = site.find("card")
    assert (found.status, found.what) == ("pass", "none, and none is required (policy.runs.card)")
    write_card(site.root, build(site.root))
    with (site.root / "captions.jsonl").open("a") as file:
        file.write("\n")
    found = site.find("card")
    assert (found.status, found.what) == ("warn", "the data has changed since its card was made")


@pytest.mark.parametrize(
    ("limit", "status", "what"),
    [
        ("optional", "warn", "the card is of an earlier fedmumc, which did not look at the image files"),
        ("required", "fail", CARD_REASONS["old"].partition("; ")[0]),
    ],
)
def test_a_card_of_an_earlier_fedmumc_is_named(site, limit, status, what):
    site.limit(card=limit)
    write_card(site.root, build(site.root))
    path = site.root / "state" / "card" / "datacard.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"data": plain["data"][:64]}))
    found = site.find("card")
    assert (found.status, found.what) == (status, what)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({}, CARD_APPROVED.partition("; ")[0]),
        ({"privacy": "required"}, STATISTICS_PRIVACY),
        ({"smallest_count": 11}, STATISTICS_SMALLEST),
    ],
)
def test_a_site_that_lists_statistics_hears_beforehand_why_its_counts_would_go_into_none(site, limits, why):
    site.limit(actions=["train.pretrain", STATISTICS], **limits)
    write_card(site.root, build(site.root))
    found = site.find("card")
    assert (found.status, found.what) == ("warn", f"policy.runs.actions lists {STATISTICS}, but {why}")
    assert f"mumc-site card {site.root} --approve" in found.remedy
