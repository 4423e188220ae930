"""What a site may tell of its data, and nothing that a site could make up: numbers over fixed names."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.labels import FIXED
from protocol.public_facts import ANOTHER, LARGEST, check_facts
from protocol.suppression import WITHHELD, Cell, is_small, publish_count, publish_table
from tests.protocol.told import FEW, LABELS, facts


def test_what_a_site_tells_is_taken():
    check_facts(facts())
    check_facts({"unit": "patient", "units": 300})
    nothing = dict.fromkeys(("images", "captions", "questions", "rows left out", "waiting"), FEW)
    check_facts(
        facts(
            unit="image",
            counts=nothing,
            tables=LABELS,
            words=dict.fromkeys(("captions", "questions", "answers"), FEW),
            overlaps=[],
            **{"near copies": dict.fromkeys(facts()["near copies"], FEW) | {"across patients": "not measured"}},
        )
    )


WRONG = [10**400, -10, 7, 10.0, True, None, "", "10", "fewer than 7", "<script>alert(1)</script>", [], {}, LARGEST * 10]


def places(value, path=()):
    """The path to every number and word in it."""
    if isinstance(value, dict | list):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(member, (*path, key))
    else:
        yield path


@pytest.mark.parametrize("path", list(places(facts())), ids=lambda path: "/".join(map(str, path)))
def test_at_no_place_can_stand_what_a_site_made_up(path):
    for wrong in WRONG:
        said = copy.deepcopy(facts())
        holder = said
        for key in path[:-1]:
            holder = holder[key]
        if path[0] == "words" and isinstance(holder, list) and wrong in (7, True):
            continue  # A length of seven words can be.
        holder[path[-1]] = wrong
        with pytest.raises(MessageError, match="says what no data card says"):
            check_facts(said)


@pytest.mark.parametrize("where", [(), ("counts",), ("tables",), ("tables", "images by organ"), ("words",)])
@pytest.mark.parametrize("name", ["Dr. Canary", "ct\u200b", "CT", "\ud800", "<b>"])
def test_no_other_name_is_taken_and_none_may_be_missing(where, name):
    said = copy.deepcopy(facts())
    holder = said
    for key in where:
        holder = holder[key]
    holder[name] = holder[next(iter(holder))]
    with pytest.raises(MessageError, match="not exactly the names that a card has"):
        check_facts(said)
    del holder[name]
    check_facts(said)
    del holder[next(iter(holder))]
    with pytest.raises(MessageError):
        check_facts(said)


def with_table(name, cells):
    return facts(tables=facts()["tables"] | {name: LABELS[name] | cells})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (with_table("images by organ", {"head": 130}), "more than the whole"),
        (with_table("images by organ", {"head": 110}), "less than the whole"),
        (with_table("images by organ", {"head": 60, "chest": 40}), "less than the whole"),
        (with_table("images by organ", {"head": 60, "chest": 50}), None),
        (with_table("images by organ", {"head": 100, "chest": WITHHELD}), "withheld alone can be worked out"),
        (facts(words=facts()["words"] | {"captions": [9, 5, 14]}), "not three quartiles"),
        (facts(words=facts()["words"] | {"captions": [5, 9]}), "not three quartiles"),
        (facts(overlaps=[facts()["overlaps"][0] | {"set": "ward 7"}]), "not known to everyone"),
        (facts(overlaps=[facts()["overlaps"][0] | {"set": ANOTHER}]), None),
        (facts(overlaps=[facts()["overlaps"][0] | {"images here": 130}]), "more than there are images"),
        (facts(unit="image"), "not exactly the names"),
        (facts(smallest=9), "smallest count"),
        ({"unit": "patient", "units": 0}, "units are no number"),
        ({"unit": "image", "units": 3}, "neither patient nor record"),
        ({"unit": "patient", "units": 3, "counts": {}}, "not exactly the names"),
        ([], "no object"),
    ],
)
def test_what_cannot_be_true_is_refused(said, why):
    if why is None:
        check_facts(said)
        return
    with pytest.raises(MessageError, match=why):
        check_facts(said)


CELLS = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda two: Cell(count=two[0], units=min(two)))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(10, 25))
def test_whatever_table_a_site_publishes_by_its_rule_is_taken(data, smallest):
    labels = FIXED["images", "modality"]
    cells = {label: data.draw(CELLS) for label in labels}
    cells = {label: cell if cell.units else Cell(count=0, units=0) for label, cell in cells.items()}
    units = data.draw(
        st.integers(max(cell.units for cell in cells.values()), sum(cell.units for cell in cells.values()))
    )
    whole = Cell(count=sum(cell.count for cell in cells.values()), units=units)
    few = f"fewer than {smallest}"
    counts = dict.fromkeys(facts()["counts"], few) | {"images": publish_count(whole, smallest)}
    tables = LABELS | {"images by modality": publish_table(cells, smallest)}
    if not is_small(whole, smallest):
        tables |= {"images by organ": LABELS["images by organ"] | {"head": counts["images"]}}
    check_facts(
        facts(
            smallest=smallest,
            counts=counts,
            tables=tables,
            words=dict.fromkeys(facts()["words"], few),
            overlaps=[],
            **{"near copies": dict.fromkeys(facts()["near copies"], few)},
        )
    )
