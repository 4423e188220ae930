"""What the workbench says of an answered question, and of the lines of a log."""

import re
from html import unescape

import pytest

from client.asking import Answered
from client.ui.handling import faults_at
from client.ui.workbench import records
from client.ui.workbench.answer import answer_html, image_hardly_mattered
from client.ui.workbench.ask import AskTab
from mumc_model.reply import Reply
from mumc_model.selective import Measured

ANSWERS = (("mass", 0.7), ("cyst", 0.2))


def asked(blank=(("cyst", 0.5), ("mass", 0.4)), answers=ANSWERS, **reply):
    return Answered(reply=Reply(answers=answers, **reply), blank=Reply(answers=blank), line=7)


def words(found):
    return unescape(" ".join(re.sub("<[^>]*>", " ", answer_html(found)).split()))


def test_an_answer_comes_first_and_its_doubt_after_it():
    measured = Measured(share=0.8, ci95=(0.7, 0.9), n=60)
    said = words(asked(shortlist=("mass",), accuracy=measured, guarantee="It promises <this>."))
    assert said.startswith("mass Calibrated probability: 70.0 % 80 % (70 to 90 %, n = 60)")
    assert "It promises <this>." in said
    assert said.endswith("line 7 of the site's log.")


def test_an_ensemble_says_how_many_of_its_members_agree():
    assert "2 of 3 members give mass as their own first answer." in words(asked(members=3, agreement=2 / 3))
    assert "members" not in words(asked())


def test_several_possible_answers_are_a_short_list():
    said = words(asked(shortlist=("mass", "cyst")))
    assert said.startswith("One of: mass, cyst The likeliest, mass, has a calibrated probability of 70.0 %.")
    assert "right: not measured" in said


def test_a_referral_says_why_and_that_the_likeliest_answer_is_not_to_be_relied_on():
    said = words(asked(referral="the image is unlike those that it learned from", shortlist=("mass",)))
    assert said.startswith("Refer to a human Why: the image is unlike those that it learned from. Not to be relied on:")


def test_the_limit_below_which_none_fits_is_said():
    assert words(asked(threshold=0.75)).startswith("none of these")
    assert "Below 75 % the model says that none of its answers fits" in words(asked(threshold=0.75))


@pytest.mark.parametrize(
    ("blank", "mattered"),
    [([("mass", 0.61), ("cyst", 0.3)], False), ([("mass", 0.59), ("cyst", 0.3)], True), ([("cyst", 0.7)], True)],
)
def test_the_image_hardly_mattered_where_none_gives_the_same_answer_about_as_surely(blank, mattered):
    found = asked(blank=tuple(blank))
    assert image_hardly_mattered(found) is not mattered
    assert ("the image hardly mattered" in words(found)) is not mattered


def test_a_model_that_writes_freely_is_compared_with_nothing():
    reply = Reply(answers=(("a mass", 0.4),))
    said = words(Answered(reply=reply, blank=reply, line=1))
    assert "on a blank image" not in said
    assert "was not asked about a blank image" in said


def test_an_answer_is_text_and_no_page():
    assert "<img" not in answer_html(asked(answers=(("<img src=x>", 1.0),)))


def test_a_missing_model_is_a_sentence_with_the_command_to_run(untouched):
    # Without the tab's fields: Gradio leaves an event loop open in the process that makes them.
    tab = object.__new__(AskTab)
    tab._root, tab._model = untouched, None
    said = unescape(faults_at("place")(tab.open_model)()["place"])
    assert f"there is no answering model in {untouched}/state/vqa; make one with: mumc-site finetune" in said


def line(index, kind, **said):
    return {"index": index, "kind": kind, "time": f"2026-11-26T20:00:{index:02d}.5+00:00", **said}


def order(index, nonce, round=1, stage="train.pretrain", run="spring"):
    return line(index, "order", nonce=nonce, run=run, round=round, attempt=1, stage=stage, steps=5, bytes=1000)


def reply(index, before, **said):
    place = {name: before[name] for name in ("nonce", "run", "round", "attempt", "stage")}
    report = {"answer": "report", "metrics": {}, "withheld": [], "bytes": 2000, "epsilon_spent": None}
    return line(index, "reply", **place, **report | said)


FIRST, SECOND, TUNE, AGAIN = (
    order(0, "a"),
    order(2, "b", 2),
    order(4, "c", 3, "train.finetune"),
    order(7, "d", 1, run="summer"),
)
LINES = [
    FIRST,
    reply(1, FIRST, metrics={"mlm": 3.0, "itm": 0.7}),
    SECOND,
    reply(3, SECOND, metrics={"mlm": 2.0}, withheld=["itm"]),
    TUNE,
    reply(5, TUNE, metrics={"accuracy": 0.5, "answer_score_010": 0.1, "answer_score_020": 0.2}, bytes=0),
    line(6, "turned_away", stage="train.pretrain", code="seal", text="no", why="a stranger's signature"),
    AGAIN,
]


def test_losses_are_read_off_the_receipts_round_by_round():
    assert records.losses_by_run(LINES) == {"spring": {"mlm": [(1, 3.0), (2, 2.0)], "itm": [(1, 0.7)]}}
    assert records.withheld(LINES) == ["itm"]


def test_an_attempt_that_is_repeated_counts_once():
    again = {**reply(8, SECOND, metrics={"mlm": 1.5}), "attempt": 2}
    assert records.losses_by_run([*LINES, again])["spring"]["mlm"] == [(1, 3.0), (2, 1.5)]


def test_a_run_says_its_rounds_steps_and_whether_an_order_is_open():
    summer, spring = records.run_rows(LINES)
    assert spring == ("spring", "2", "10", "2026-11-26 20:00:00 to 2026-11-26 20:00:05", "every order has its reply")
    assert summer[:3] == ("summer", "0", "0")
    assert summer[4] == "round 1 has no reply yet"
    assert records.open_orders(LINES) == [AGAIN]


def test_what_left_stands_beside_its_order_the_newest_first():
    rows = records.round_rows(LINES)
    assert [row[0] for row in rows] == [
        "summer, round 1.1",
        "spring, round 3.1",
        "spring, round 2.1",
        "spring, round 1.1",
    ]
    assert rows[0][4:] == ("no reply yet", "", "")
    assert rows[-1][3:] == ("1,000", "2026-11-26 20:00:01", "2,000 bytes of weights, 2 metrics", "2")


def test_refusals_and_strangers_stand_with_their_reason():
    refusal = reply(8, AGAIN, answer="refusal", code="policy_steps", text="too many steps")
    rows = records.refusal_rows([*LINES, refusal])
    assert [row[1:] for row in rows] == [
        ("summer, round 1: train.pretrain", "policy_steps", "too many steps"),
        ("train.pretrain", "seal", "a stranger's signature"),
    ]
    assert records.round_rows([*LINES, refusal])[0][5] == "refused"


def test_the_curve_for_short_lists_is_counted_and_not_spelt_out():
    assert records.tested_rows(LINES) == [
        ("spring, round 3", "train.finetune", "accuracy 0.5; and 2 points of the curve for short lists")
    ]
