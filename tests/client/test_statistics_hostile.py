"""What a server that lies gets from a site in the name of statistics: a refusal with its code, and nothing else."""

import dataclasses
from datetime import UTC, datetime

import pytest

from client.config import RunLimits
from client.datacard.card import build
from client.datacard.stamp import FOLDER, PUBLIC
from client.datacard.write import write_card
from client.errors import GateError
from client.gate import CARD_APPROVED, STATISTICS_PRIVACY, STATISTICS_SMALLEST, check_statistics
from client.privacy.policy import PrivacyPolicy, sign_policy
from client.site_settings import with_privacy_policy
from configs.loader import dump
from protocol.errors import MessageError
from protocol.messages import STAGE_ACTIONS, STATISTICS_ACTIONS, Refusal, Report, to_json
from protocol.secagg.fixed_point import choose
from protocol.signing import new_key
from protocol.statistics import fixed_point
from protocol.suppression import SMALLEST
from tests.client.counted import ALL, Counted, Liar, approve, consent, lines, shorten, steps
from tests.client.masked import config

STAGES = tuple(STATISTICS_ACTIONS)


@pytest.fixture
def liar(counting_folder):
    return Liar(counting_folder)


def test_an_honest_session_is_answered(liar):
    assert isinstance(liar.advertise(), Report)


def test_a_sum_that_could_be_of_two_sites_is_refused(liar):
    three = {"keys": {site: liar.session().keys[site] for site in ALL[:3]}, "weights": dict.fromkeys(ALL[:3], 1)}
    assert liar.advertise(**three, threshold=2, fixed_point=fixed_point(3, 2)) == Refusal(
        code="policy_min_sites",
        text="the session may open a sum of 2 sites, and this site hides among no fewer than 3 (policy.runs.min_sites)",
    )


def coarse():
    return choose(clip=1.0, tolerance=1e-6, weights=[1] * 4, threshold=3)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"weights": {**dict.fromkeys(ALL, 1), "ash": 1000}},
            "bad_session",
            "every site of a sum of counts has weight",
        ),
        ({"weights": dict.fromkeys(ALL, 10)}, "bad_session", "every site of a sum of counts has weight 1"),
        ({"schema_digest": "d" * 64}, "statistics_labels", "sums other labels than this site knows"),
        ({"values": 84}, "statistics_labels", "sums other labels than this site knows"),
        ({"fixed_point": coarse()}, "bad_session", "not the one in which counts are summed exactly"),
    ],
)
def test_a_session_on_other_terms_is_refused(liar, changes, code, words):
    answer = liar.advertise(**changes)
    assert (answer.code, words in answer.text) == (code, True), answer


def test_a_site_that_hides_among_more_or_from_more_says_so(liar, counting_folder):
    consent(counting_folder / "ash", min_sites=4)
    assert liar.advertise().code == "policy_min_sites"
    consent(counting_folder / "ash", colluding=1)
    assert liar.advertise().code == "policy_colluding"


def test_a_site_with_fewer_records_than_its_own_limit_asks_for_takes_no_part(liar, counting_folder):
    consent(counting_folder / "ash", min_records=47)
    assert liar.advertise().code == "policy_records"
    consent(counting_folder / "ash", min_records=46)
    assert isinstance(liar.advertise(), Report)


def test_a_server_that_knows_other_labels_hears_so(liar):
    """It names them in the order too, and not the session alone."""
    others = {"base_digest": "d" * 64, "schema_digest": "d" * 64}
    answer = liar.ask("ash", liar.order(masking=liar.session(**others).to_dict(), base_digest="d" * 64))
    assert answer.code == "statistics_labels"


def not_listed(root):
    consent(root, actions=["train.pretrain"])


def private(root):
    consent(root, privacy="required")


def signed(root):
    """The officer's policy, under which no exact count leaves."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"units": 40, "epsilon": 8.0, "delta": 1e-5, "officer": "Kim", "role": "officer", "reason": "test"}
    policy = sign_policy(PrivacyPolicy(**said, approved=now), root.name, new_key())
    path = root / "site.yaml"
    path.write_text(with_privacy_policy(path.read_text(), policy.to_dict()))


def careful(root):
    consent(root, smallest_count=SMALLEST + 1)
    approve(root)


def changed(root):
    shorten(root, 1)


def unapproved(root):
    (root / FOLDER / PUBLIC).unlink()


def edited(root):
    path = root / FOLDER / PUBLIC
    path.write_text(path.read_text().replace('"smallest": 10', '"smallest": 20'))


def rebuilt(root):
    """A card of the data as it is, which nobody has approved, beside the approved one of the data as it was."""
    shorten(root, 1)
    write_card(root, build(root))


def put_back(root):
    """The public card that was approved before the last one, which the site has signed too."""
    before = (root / FOLDER / PUBLIC).read_bytes()
    shorten(root, 10)
    approve(root)
    assert (root / FOLDER / PUBLIC).read_bytes() != before
    (root / FOLDER / PUBLIC).write_bytes(before)


def asleep(root):
    hour = (datetime.now().hour + 2) % 24
    consent(root, hours=f"{hour:02d}:00-{hour:02d}:30")


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (not_listed, "policy_actions", None),
        (private, "policy_statistics", STATISTICS_PRIVACY),
        (signed, "policy_statistics", STATISTICS_PRIVACY),
        (careful, "policy_statistics", STATISTICS_SMALLEST),
        (changed, "policy_card", CARD_APPROVED),
        (rebuilt, "policy_card", CARD_APPROVED),
        (put_back, "policy_card", CARD_APPROVED),
        (unapproved, "policy_card", CARD_APPROVED),
        (edited, "policy_card", CARD_APPROVED),
        (asleep, "policy_hours", None),
    ],
)
def test_a_site_that_has_not_agreed_answers_no_stage(liar, counting_folder, change, code, text):
    change(counting_folder / "ash")
    for stage in STAGES:
        answer = liar.ask("ash", liar.order(STATISTICS_ACTIONS[stage], liar.session().to_dict()))
        assert answer.code == code
        assert text is None or answer.text == text
    assert not lines(counting_folder / "ash"), "nothing of it is noted as a sum"
    assert len([line for line in lines(counting_folder / "ash", "reply") if line["code"] == code]) == len(STAGES)


def test_by_itself_no_site_takes_part(liar, counting_folder):
    with pytest.raises(GateError) as refused:
        check_statistics(RunLimits(), liar.order(), counting_folder / "ash", datetime.now().time())
    assert refused.value.code == "policy_actions"


@pytest.mark.parametrize("extra", [{"recipe": {"model": {}}}, {"vocabulary": ("a",)}, {"steps": 1}, {"masking": {}}])
def test_nothing_rides_along_with_an_order_for_statistics(liar, extra):
    with pytest.raises(MessageError, match=r"carries a recipe, words or steps|lacks order\.masking"):
        dataclasses.replace(liar.order(), **extra)


def test_counts_that_the_sum_does_not_hold_are_refused_and_not_cut(liar, monkeypatch):
    monkeypatch.setattr("client.statistics.LARGEST", 20)
    answer = liar.advertise()
    assert (answer.code, "more than 20 records" in answer.text) == ("statistics_too_large", True)


def test_no_stage_of_training_ends_a_session_of_counts_and_none_of_counts_one_of_training(liar, counting_folder):
    session = liar.session()
    training = {"recipe": liar_recipe(), "steps": 2, "total_steps": 2}
    asked = liar.order(STAGE_ACTIONS["advertise"], session.to_dict(), **training)
    assert liar.ask("ash", asked).code == "bad_session", "a session of counts is not begun as training"
    assert isinstance(liar.advertise(), Report)
    for stage in ("share", "agree", "unmask"):
        asked = liar.order(STAGE_ACTIONS[stage], {"x": 1}, **training)
        assert liar.ask("ash", asked).code == "bad_session", stage
    other = dataclasses.replace(session, run_id="lie-2", base_digest="d" * 64, weights=dict.fromkeys(ALL, 10))
    place = {"run_id": "lie-2", "base_digest": "d" * 64}
    asked = liar.order(STAGE_ACTIONS["advertise"], other.to_dict(), **training, **place)
    assert isinstance(liar.ask("ash", asked), Report)
    for stage in ("share", "mask", "agree", "unmask"):
        assert liar.ask("ash", liar.order(STATISTICS_ACTIONS[stage], {"x": 1}, **place)).code == "bad_session", stage
    assert steps(counting_folder / "ash") == []


def liar_recipe():
    recipe = dump(config().recipe)
    recipe["model"]["text"]["vocab_size"] = 100
    return recipe


def test_a_stage_that_is_asked_again_gets_the_same_bytes_and_one_line(liar, counting_folder):
    asked = liar.order(masking=liar.session().to_dict())
    assert to_json(liar.ask("ash", asked)) == to_json(liar.ask("ash", asked))
    Counted(counting_folder, crashed={("ash", 1, 1, "mask"), ("ash", 1, 1, "unmask")})
    assert steps(counting_folder / "ash") == [("counts", "masked"), ("counts", "opened"), ("counts", "told")]


def test_a_log_without_its_last_lines_takes_part_in_nothing(counted_folder):
    """Whoever takes the lines of a sum back, for another one, breaks the log that the server knows the head of."""
    path = counted_folder / "ash" / "state" / "log.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if '"kind":"statistics"' not in line]
    path.write_text("".join(kept))
    assert Liar(counted_folder).advertise().code == "bad_chain"


def test_approval_is_for_the_card_of_the_data_as_it_is(liar, counting_folder):
    shorten(counting_folder / "ash", 1)
    assert liar.advertise().code == "policy_card"
    approve(counting_folder / "ash")
    assert isinstance(liar.advertise(), Report)
