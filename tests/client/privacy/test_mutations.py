"""Each bug that makes an epsilon false is put in on purpose, and the suite's check for it fails."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from client.privacy import deferred, gradients, layers
from client.privacy.checks import check_independence
from client.privacy.deferred import DeferredGradients
from client.privacy.errors import CouplingError
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler
from tests.client.privacy import test_randomness as noise
from tests.client.privacy import test_sampling as samples
from tests.client.privacy.mechanism import (
    Records,
    check_bounded,
    check_nan_adds_nothing,
    check_same_as_loop,
    key,
    loss_of,
    recipe,
    released,
    site_of,
    trainer_of,
    units_of,
)
from tests.client.privacy.test_gradients import Images, Twice
from tests.client.privacy.test_sensitivity import in_batch

CLIPPING_NORM = 0.5


@cache
def sound():
    """A trainer made before there is a bug: it refuses some of them itself, when it tries its layers."""
    return trainer_of(recipe(), double=True)


def sensitivity():
    trainer = sound()
    units = units_of(trainer, 4)
    found = DeferredGradients(trainer.weights, trainer.roots)
    for row in range(4):
        check_bounded(found, trainer.weights, loss_of(trainer), units, row, 1e-2)


def two_calls():
    torch.manual_seed(0)
    module = Twice(None).double()
    weights, images = dict(module.named_parameters()), Images(torch.randn(4, 2, 4, 4, dtype=torch.float64))
    found = DeferredGradients(weights, [module])
    check_same_as_loop(found, weights, lambda batch: module(batch.image_BCHW), images, 1.0)


def not_a_number():
    trainer = sound()
    found = DeferredGradients(trainer.weights, trainer.roots)
    check_nan_adds_nothing(found, trainer.weights, loss_of(trainer), units_of(trainer, 4))


def one_patient():
    """What a patient with three records releases is as long as the clipping norm, at the public batch size."""
    quiet = {"noise_multiplier": 1e-9, "clipping_norm": CLIPPING_NORM, "physical_batch": 8}
    trainer = trainer_of(recipe(privacy=quiet))
    assert max(released(trainer, site_of(Records(3, 1), ["one"] * 3), steps=2)) <= CLIPPING_NORM * (1 + 1e-4)


def memory(trainer=None):
    """A unit's loss does not depend on whom the trainer saw before."""
    trainer = trainer or trainer_of(recipe(losses=["mcl"]), double=True)
    units = units_of(trainer, 2, 1)
    before = loss_of(trainer)(units)
    loss_of(trainer)(units_of(trainer, 5, 2))
    assert torch.allclose(before, loss_of(trainer)(units), rtol=1e-9)


def level():
    noise.check_level(SecureSource(key(1)), 1.0, 1.0)


def everywhere():
    noise.check_everywhere(SecureSource(key(1)))


def each_step():
    noise.check_new_each_step(SecureSource(key(1)))


def drawn():
    return samples.drawn(PoissonSampler(samples.UNITS, samples.RATE, SecureSource(key(1))), 1500)


def independent():
    samples.check_independent(drawn())


def one_record():
    samples.check_one_record_a_unit(drawn())


def halve_the_noise(patch):
    whole = SecureSource.add_normals
    patch.setattr(SecureSource, "add_normals", lambda s, sums, deviation, step=0.0: whole(s, sums, deviation / 2, step))


def spare_one_layer(patch):
    whole = SecureSource.add_normals
    patch.setattr(SecureSource, "add_normals", lambda s, sums, *rest: whole(s, sums[1:], *rest))


def reuse_the_noise(patch):
    whole = SecureSource.add_normals

    def add_normals(source, *rest):
        source.__init__(key(5))
        whole(source, *rest)

    patch.setattr(SecureSource, "add_normals", add_normals)


def seed_from_the_run(patch):
    patch.setattr("client.privacy.randomness.os.urandom", lambda count: key(7))


def clip_too_loosely(patch):
    whole = gradients.clip_factors
    patch.setattr(deferred, "clip_factors", lambda norm_B, clipping_norm: whole(norm_B, 5 * clipping_norm))


def forget_embeddings(patch):
    patch.setattr(layers.Embedding, "squares", lambda layer: layer.gradient[0].new_zeros(len(layer.gradient[0])))


def measure_single_calls(patch):
    """Squared lengths of the calls are summed, and what is between them is forgotten."""

    def squares(layer):
        pairs = zip(layer.input, layer.gradient, strict=True)
        return sum(layers.squares_of_product(*pair) + pair[1].sum(1).square().sum(1) for pair in pairs)

    patch.setattr(layers.Matrix, "squares", squares)


def let_nan_pass(patch):
    patch.setattr(deferred, "clip_factors", lambda norm_B, norm: (norm / norm_B).clamp(max=1.0))
    patch.setattr(layers.Watcher, "blank", lambda *_: None)
    patch.setattr(layers.Small, "blank", lambda *_: None)


def count_records_twice(patch):
    whole = PoissonSampler.draw
    patch.setattr(PoissonSampler, "draw", lambda sampler: whole(sampler).repeat(2))


def shuffle(patch):
    """Batches of one size from a list in random order, as an ordinary loader has them."""
    rng, left = np.random.default_rng(0), []

    def draw(sampler):
        if len(left) < 18:
            left[:] = rng.permutation(len(sampler)).tolist()
        unit_S = torch.tensor([left.pop() for _ in range(18)])
        return sampler._record_R[sampler._first_U[unit_S]]

    patch.setattr(PoissonSampler, "draw", draw)


def divide_by_the_true_batch(patch):
    """The mean over the units that were sampled, of which there is one where four are expected."""

    def scale_grad(optimizer):
        for weight in optimizer.params:
            weight.grad /= 1

    patch.setattr(PrivateOptimizer, "scale_grad", scale_grad)


def take_records_for_units(patch):
    whole = PoissonSampler.__init__

    def each_apart(sampler, units, *rest):
        whole(sampler, [f"record-{number}" for number in range(len(units))], *rest)

    patch.setattr(PoissonSampler, "__init__", each_apart)


BUGS = {
    "the noise is halved": (halve_the_noise, level),
    "one layer has no noise": (spare_one_layer, everywhere),
    "the noise of the last step is used again": (reuse_the_noise, each_step),
    "the run's seed makes the noise": (seed_from_the_run, noise.check_fresh),
    "clipping is five times too loose": (clip_too_loosely, sensitivity),
    "embeddings are not clipped": (forget_embeddings, sensitivity),
    "a layer's calls are measured one by one": (measure_single_calls, two_calls),
    "what is not a number passes": (let_nan_pass, not_a_number),
    "a record is counted twice": (count_records_twice, one_record),
    "a record is counted twice in a release": (count_records_twice, one_patient),
    "batches are shuffled": (shuffle, independent),
    "the mean is over the true batch": (divide_by_the_true_batch, one_patient),
    "records are taken for patients": (take_records_for_units, one_patient),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_s_check_fails_where_there_is_the_bug_and_only_there(bug, monkeypatch):
    put_in, check = BUGS[bug]
    check()
    put_in(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("put_in", [clip_too_loosely, forget_embeddings], ids=["too loose", "embeddings"])
def test_a_trainer_finds_wrong_clipping_itself_before_its_first_step(put_in, monkeypatch):
    put_in(monkeypatch)
    with pytest.raises(CouplingError, match="clipping norms from that of single units"):
        trainer_of(recipe())


def test_negatives_from_the_batch_are_found():
    trainer = trainer_of(recipe(losses=["mcl"]), double=True)
    check = trainer.gradients, trainer.weights
    check_independence(*check, loss_of(trainer, 0.0), units_of(trainer, 3), trainer.roots)
    with pytest.raises(CouplingError, match="mixes units"):
        check_independence(*check, in_batch(trainer), units_of(trainer, 3), trainer.roots)


def test_a_queue_of_earlier_units_is_found():
    memory()
    trainer = trainer_of(recipe(losses=["mcl"]), double=True)
    inner = trainer.objective

    class Queued:
        """Keys of units that were seen before stand beside the bank's."""

        def __call__(self, units, alpha):
            found = inner(units, alpha)
            with torch.no_grad():
                image_BE = inner.model.image_features(units.image_BCHW)[1]
                text_BE = inner.model.text_features(units.ids_BL, units.mask_BL)[1]
            bank = inner.bank
            inner.bank = replace(
                bank, image_NE=torch.cat([bank.image_NE, image_BE]), text_NE=torch.cat([bank.text_NE, text_BE])
            )
            return found

    trainer.objective = Queued()
    with pytest.raises(AssertionError):
        memory(trainer)
