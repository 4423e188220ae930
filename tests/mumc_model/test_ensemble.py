"""An ensemble answers by the mean of its members, and is trusted as far as that mean was right on validation."""

import json
from dataclasses import replace

import pytest
import torch

from mumc_model.answerer import Answerer
from mumc_model.answering import weigh_questions
from mumc_model.ensemble import join, weigh_together
from mumc_model.errors import CheckpointError, ConfigError
from mumc_model.members import ENSEMBLE_FILE
from mumc_model.reply_text import agreement
from mumc_model.trust import fit_trust
from tests.mumc_model.test_finetune import CPU, TOKENIZER, samples_of, tuned, write_site

QUESTION = "Which half?"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def data(site):
    return samples_of(site)


@pytest.fixture(scope="module")
def members(data):
    """Two members that learned with different seeds, and what they say of validation."""
    found = []
    for seed in (0, 1):
        result = tuned(data, steps=20, seed=seed)
        texts, validated_NK = result.candidates.texts, result.validated_NK
        trust = fit_trust(
            result.model, texts, result.calibration, validated_NK, train=data.train, validation=data.val, device=CPU
        )
        one = Answerer(
            model=result.model, tokenizer=TOKENIZER, texts=texts, calibration=result.calibration, trust=trust
        )
        found.append((one, validated_NK))
    return found


def joined(data, members):
    answerers, validated = zip(*members, strict=True)
    return join(answerers, validated, train=data.train, validation=data.val, device=CPU)


def test_members_that_are_all_the_same_are_the_single_model_to_the_bit(data, members, site):
    single = members[0][0]
    three = joined(data, [members[0]] * 3)
    assert three.calibration == single.calibration
    assert three.trust.to_dict() == single.trust.to_dict()
    for row in site.vqa[:6]:
        alone, together = (one.ask(row.image, row.question, device=CPU) for one in (single, three))
        assert (together.members, together.agreement) == (3, 1.0)
        assert replace(together, members=1, agreement=None) == alone
    each = [weigh_together(one, data.test, device=CPU, calibration=one.calibration) for one in (single, three)]
    assert torch.equal(*each)


def test_the_probabilities_are_the_calibrated_mean_of_the_members(data, members, site):
    two = joined(data, members)
    alone = [weigh_questions(one.model, one.candidates, data.test, device=CPU) for one, _ in members]
    assert not torch.allclose(*alone, atol=0.01)
    mean_NK = (alone[0] + alone[1]) / 2
    torch.testing.assert_close(weigh_together(two, data.test, device=CPU), mean_NK)
    rows = [row for row in site.vqa if row.split == "test"]
    types = [two.trust.types.guess(row.question) for row in rows]
    calibrated_NK = two.calibration.apply(mean_NK, types)
    for row, probability_K in zip(rows, calibrated_NK, strict=True):
        found = two.ask(row.image, row.question, device=CPU, top=len(two.texts))
        expected = dict(zip(two.texts, probability_K.tolist(), strict=True))
        assert dict(found.answers) == pytest.approx(expected, abs=1e-4)


def test_a_reply_tells_how_many_members_agree_on_the_first_answer(data, members, site):
    two = joined(data, members)
    row = site.vqa[0]
    own = [one.ask(row.image, row.question, device=CPU).answers[0][0] for one, _ in members]
    found = two.ask(row.image, row.question, device=CPU)
    agreed = own.count(found.answers[0][0])
    values = found.to_dict()
    assert (values["members"], values["agreement"]) == (2, agreed / 2)
    assert agreement(found) == f"{agreed} of 2 members give {found.answers[0][0]} as their own first answer"
    assert agreement(members[0][0].ask(row.image, row.question, device=CPU)) == ""


def test_a_folder_brings_the_members_back_and_each_further_one_opens_alone(data, members, site, tmp_path):
    two = joined(data, members)
    two.save(tmp_path, {"members": 2}, [{"started from": "x"}])
    image = site.vqa[0].image
    assert Answerer.open(tmp_path).ask(image, QUESTION, device=CPU) == two.ask(image, QUESTION, device=CPU)
    second = Answerer.open(tmp_path / "member-2")
    assert second.ask(image, QUESTION, device=CPU) == members[1][0].ask(image, QUESTION, device=CPU)
    assert json.loads((tmp_path / "member-2" / "config.json").read_text())["facts"] == {"started from": "x"}


def test_a_single_model_in_the_place_of_an_ensemble_leaves_nothing_of_it(data, members, tmp_path):
    joined(data, members).save(tmp_path)
    (tmp_path / "member-7").mkdir()
    members[0][0].save(tmp_path)
    assert not (tmp_path / "member-2").exists()
    assert (tmp_path / "member-7").is_dir(), "which no ensemble has listed"
    assert Answerer.open(tmp_path).others == ()


@pytest.mark.parametrize(
    "values",
    [[], {"version": 9, "members": []}, {"version": 1, "members": ["../x"]}, {"version": 1, "members": "member-2"}],
)
def test_a_damaged_list_of_members_is_refused(members, tmp_path, values):
    members[0][0].save(tmp_path)
    (tmp_path / ENSEMBLE_FILE).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="fine-tune again"):
        Answerer.open(tmp_path)


def test_models_that_cannot_be_averaged_are_not(data, members):
    one, validated_NK = members[0]
    with pytest.raises(ConfigError, match="member 2 has another list of answers than member 1"):
        joined(data, [members[0], (replace(one, texts=one.texts[:-1]), validated_NK)])


def test_an_ensemble_has_no_words_of_its_own(data, members, site):
    with pytest.raises(ConfigError, match="leave --method generate out"):
        joined(data, members).ask(site.vqa[0].image, QUESTION, device=CPU, method="generate")
