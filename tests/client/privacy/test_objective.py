"""MUMC's losses for single units: closed forms, and nothing of a unit's loss is another unit's.

Dimensions: B units, N pairs of the bank, E embedding.
"""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from client.privacy.objective import UnitBatch
from mumc_model.masking import IGNORED
from tests.client.privacy.mechanism import LOSSES, loss_of, recipe, trainer_of, units_of


@pytest.fixture(scope="module")
def trainer():
    return trainer_of(recipe(), double=True)


def terms_of(trainer, units, alpha=0.4):
    return trainer.objective(units, alpha)[1]


def features(model, units, keep_BK):
    return model.image_features(units.image_BCHW, keep_BK)[1], model.text_features(units.ids_BL, units.mask_BL)[1]


def info_nce(query_E, positive_E, bank_NE, temperature):
    logit = float(query_E @ positive_E) / temperature
    others = [float(query_E @ key_E) / temperature for key_E in bank_NE]
    return torch.tensor([logit, *others]).double().logsumexp(0).item() - logit


@torch.no_grad()
def test_the_contrasts_are_info_nce_with_the_bank_in_the_place_of_the_queue(trainer):
    units, bank, temperature = units_of(trainer, 3), trainer.objective.bank, float(trainer.model.temp)
    image_BE, text_BE = features(trainer.model, units, units.keep_BK)
    own_image_BE, own_text_BE = features(trainer.teacher.model, units, units.teacher_keep_BK)
    found = terms_of(trainer, units, 0.0)
    for unit in range(3):
        i2t = info_nce(image_BE[unit], own_text_BE[unit], bank.text_NE, temperature)
        t2i = info_nce(text_BE[unit], own_image_BE[unit], bank.image_NE, temperature)
        i2i = info_nce(image_BE[unit], own_image_BE[unit], bank.image_NE, temperature)
        t2t = info_nce(text_BE[unit], own_text_BE[unit], bank.text_NE, temperature)
        assert float(found["mcl"][unit]) == pytest.approx((i2t + t2i) / 2, rel=1e-6)
        assert float(found["ucl"][unit]) == pytest.approx((i2i + t2t) / 4, rel=1e-6)


@torch.no_grad()
def test_soft_targets_are_the_teacher_s_over_the_own_pair_and_the_bank_alone(trainer):
    units, bank, alpha = units_of(trainer, 3), trainer.objective.bank, 0.4
    image_BE, text_BE = features(trainer.model, units, units.keep_BK)
    own_image_BE, own_text_BE = features(trainer.teacher.model, units, units.teacher_keep_BK)
    expected_B = 0
    for query, soft, own, keys in (
        (image_BE, own_image_BE, own_text_BE, bank.text_NE),
        (text_BE, own_text_BE, own_image_BE, bank.image_NE),
    ):
        keys_BZE = torch.cat([own[:, None], keys.expand(3, -1, -1)], dim=1)
        target_BZ = alpha * torch.einsum("be,bze->bz", soft / trainer.model.temp, keys_BZE).softmax(1)
        target_BZ[:, 0] += 1 - alpha
        log_BZ = torch.einsum("be,bze->bz", query / trainer.model.temp, keys_BZE).log_softmax(1)
        expected_B = expected_B - (target_BZ * log_BZ).sum(1) / 2
    assert torch.allclose(terms_of(trainer, units, alpha)["mcl"], expected_B, rtol=1e-9)


@torch.no_grad()
def test_matching_is_the_mean_of_three_cross_entropies_of_own_and_drawn_pairs(trainer):
    units, bank, model = units_of(trainer, 4), trainer.objective.bank, trainer.model
    token_BSD, image_BE = model.image_features(units.image_BCHW, units.keep_BK)
    state_BLD, text_BE = model.text_features(units.ids_BL, units.mask_BL)
    image_B, text_B = trainer.objective._hard_negatives(units, image_BE, text_BE)

    def logits(state_BLD, mask_BL, token_BSD):
        return model.match_logits(model.text_encoder.fuse(state_BLD, mask_BL, token_BSD)[:, 0]).log_softmax(1)

    own = -logits(state_BLD, units.mask_BL, token_BSD)[:, 1]
    wrong_image = -logits(state_BLD, units.mask_BL, bank.token_NSD[image_B])[:, 0]
    wrong_text = -logits(bank.state_NLD[text_B], bank.mask_NL[text_B], token_BSD)[:, 0]
    assert torch.allclose(terms_of(trainer, units)["itm"], (own + wrong_image + wrong_text) / 3, rtol=1e-9)


@torch.no_grad()
def test_masked_tokens_are_averaged_over_the_unit_s_own_and_none_cost_nothing(trainer):
    units, model = units_of(trainer, 4), trainer.model
    labels_BL = units.labels_BL.clone()
    labels_BL[2] = IGNORED
    units = replace(units, labels_BL=labels_BL)
    token_BSD, _ = model.image_features(units.image_BCHW, units.keep_BK)
    state_BLD = model.text_encoder.encode(units.masked_BL, units.mask_BL)
    log_BLV = model.text_encoder.mlm_logits(model.text_encoder.fuse(state_BLD, units.mask_BL, token_BSD)).log_softmax(2)
    found_B = terms_of(trainer, units, 0.0)["mlm"]
    for unit in range(4):
        losses = [-float(log_BLV[unit, place, token]) for place, token in enumerate(labels_BL[unit]) if token >= 0]
        assert float(found_B[unit]) == pytest.approx(sum(losses) / max(1, len(losses)), rel=1e-9)
    assert float(found_B[2]) == 0


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize(
    "shape", [{}, {"stem": "conv"}, {"mask_equal_captions": True}], ids=["linear", "conv", "equal"]
)
def test_a_unit_s_losses_in_a_batch_are_those_that_it_has_alone(shape, alpha):
    trainer = trainer_of(recipe(**shape), double=True)
    units = units_of(trainer, 5)
    together = terms_of(trainer, units, alpha)
    assert set(together) == set(LOSSES)
    for unit in range(5):
        alone = terms_of(trainer, units.part(unit, unit + 1), alpha)
        for name, term_B in together.items():
            assert float(term_B[unit]) == pytest.approx(float(alone[name]), rel=1e-9, abs=1e-12)


def test_another_unit_s_longer_caption_changes_nothing(trainer):
    units = units_of(trainer, 2)
    changed = {name: getattr(units, name).clone() for name in vars(units)}
    changed["ids_BL"][1], changed["masked_BL"][1], changed["mask_BL"][1] = 7, 8, 1
    changed["labels_BL"][1] = 9
    before, after = terms_of(trainer, units), terms_of(trainer, UnitBatch(**changed))
    for name in LOSSES:
        assert float(before[name][0]) == pytest.approx(float(after[name][0]), rel=1e-12)
    assert float(before["mlm"][1]) != float(after["mlm"][1])


@torch.no_grad()
def test_hard_negatives_are_drawn_in_proportion_to_how_alike_they_are(trainer):
    count, bank = 20_000, trainer.objective.bank
    one = units_of(trainer, 1)
    units = UnitBatch(*(tensor.expand(count, *tensor.shape[1:]) for tensor in vars(one).values()))
    units = replace(units, chance_B2=torch.rand(count, 2, generator=torch.Generator().manual_seed(1)))
    image_E, text_E = (feature[0] for feature in features(trainer.model, one, one.keep_BK))
    found = trainer.objective._hard_negatives(units, image_E.expand(count, -1), text_E.expand(count, -1))
    for drawn_B, query_E, key_NE in ((found[0], text_E, bank.image_NE), (found[1], image_E, bank.text_NE)):
        weight_N = (key_NE @ query_E / trainer.model.temp).softmax(0) + 1e-4
        expected_N = count * weight_N / weight_N.sum()
        likely = expected_N > 5
        seen_N = torch.bincount(drawn_B, minlength=len(key_NE))
        assert seen_N[~likely].sum() <= 30
        scaled = expected_N[likely] * seen_N[likely].sum() / expected_N[likely].sum()
        assert stats.chisquare(seen_N[likely].numpy(), scaled.numpy()).pvalue > 1e-4


def test_a_pair_of_the_unit_s_own_caption_is_no_negative_where_equal_captions_are_hidden():
    trainer = trainer_of(recipe(mask_equal_captions=True), double=True)
    bank, units = trainer.objective.bank, units_of(trainer, 200)
    units = replace(units, caption_id_B=bank.caption_id_N[torch.arange(200) % len(bank.caption_id_N)])
    image_BE, text_BE = features(trainer.model, units, units.keep_BK)
    for drawn_B in trainer.objective._hard_negatives(units, image_BE, text_BE):
        assert (bank.caption_id_N[drawn_B] != units.caption_id_B).all()
    trainer.objective.bank = replace(bank, caption_id_N=torch.zeros_like(bank.caption_id_N))
    equal = terms_of(trainer, replace(units, caption_id_B=torch.zeros(200, dtype=torch.int64)), 0.0)
    assert equal["mcl"].abs().max() < 1e-9


def test_temperature_bank_and_teacher_take_no_gradient(trainer):
    loss_of(trainer, 0.4)(units_of(trainer, 3)).sum().backward()
    frozen = [trainer.model.temp, *trainer.teacher.parameters(), *vars(trainer.objective.bank).values()]
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in frozen)
    assert trainer.model.vision_proj.weight.grad.abs().max() > 0
    trainer.model.zero_grad()
