"""Faults to put into the installed mechanism: each is one that some implementation of DP-SGD has had."""

import numpy as np

from client.privacy import deferred, gradients
from client.privacy.deferred import DeferredGradients
from client.privacy.gradients import clip_factors
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler

_add_normals = SecureSource.add_normals
_draw = PoissonSampler.draw
_sampler_init = PoissonSampler.__init__
_optimizer_init = PrivateOptimizer.__init__


def _noise_times(factor):
    def mutate(patch):
        patch.setattr(
            SecureSource,
            "add_normals",
            lambda self, sums, deviation, step=0.0: _add_normals(self, sums, factor * deviation, step),
        )

    return mutate


def no_noise(patch):
    patch.setattr(SecureSource, "add_normals", lambda self, sums, deviation, step=0.0: None)


def noise_reused_across_steps(patch):
    patch.setattr(
        SecureSource,
        "add_normals",
        lambda self, sums, deviation, step=0.0: _add_normals(SecureSource(bytes(32)), sums, deviation, step),
    )


def noise_shared_by_layers(patch):
    def add_normals(self, sums, deviation, step=0.0):
        key = self.words(4).tobytes()
        for flat in sums:
            _add_normals(SecureSource(key), [flat], deviation, step)

    patch.setattr(SecureSource, "add_normals", add_normals)


def noise_that_the_next_step_takes_away(patch):
    last = []

    def add_normals(self, sums, deviation, step=0.0):
        fresh = [np.zeros_like(flat) for flat in sums]
        _add_normals(self, fresh, deviation / 2**0.5, step)
        before = last.pop() if last else [np.zeros_like(flat) for flat in sums]
        if before[0].shape != fresh[0].shape:
            before = fresh
        for flat, new, old in zip(sums, fresh, before, strict=True):
            flat += new - old
        last.append(fresh)

    patch.setattr(SecureSource, "add_normals", add_normals)


def noise_of_another_shape(patch):
    def add_normals(self, sums, deviation, step=0.0):
        for flat in sums:
            flat += np.where(self.words(flat.size) % 2, deviation, -deviation).astype(np.float32)

    patch.setattr(SecureSource, "add_normals", add_normals)


def a_patient_counted_twice(patch):
    patch.setattr(PoissonSampler, "draw", lambda self: _draw(self).repeat(2))


def records_drawn_in_place_of_patients(patch):
    def init(self, units, sample_rate, source):
        _sampler_init(self, [f"{unit} {row}" for row, unit in enumerate(units)], sample_rate, source)

    patch.setattr(PoissonSampler, "__init__", init)


def drawn_twice_as_often_as_declared(patch):
    patch.setattr(
        PoissonSampler,
        "__init__",
        lambda self, units, sample_rate, source: _sampler_init(self, units, min(1.0, 2 * sample_rate), source),
    )


def half_the_public_batch_size(patch):
    def init(self, optimizer, *, expected_batch, **settings):
        _optimizer_init(self, optimizer, expected_batch=expected_batch / 2, **settings)

    patch.setattr(PrivateOptimizer, "__init__", init)


def _clip_times(factor, *modules):
    def mutate(patch):
        for module in modules:
            patch.setattr(
                module, "clip_factors", lambda norm_B, clipping_norm: clip_factors(norm_B, factor * clipping_norm)
            )

    return mutate


def each_layer_clipped_by_itself(patch):
    def clip(self, units, clipping_norm):
        seen = [layer for layer in self._layers if layer.take(units)]
        for layer in seen:
            layer.add(clip_factors(layer.squares().sqrt(), clipping_norm))
        return sum(layer.squares() for layer in seen).sqrt()

    patch.setattr(DeferredGradients, "_clip", clip)


halved_noise, doubled_noise = _noise_times(0.5), _noise_times(2.0)
clip_twice_too_loose = _clip_times(2, gradients, deferred)
clip_five_times_too_loose = _clip_times(5, gradients, deferred)
clip_twice_too_tight = _clip_times(0.5, gradients, deferred)
only_hooks_clip_too_loose, only_the_others_clip_too_loose = _clip_times(2, deferred), _clip_times(2, gradients)

MUTATIONS = {
    "halved noise": (halved_noise, "privacy is weaker"),
    "no noise": (no_noise, "privacy is weaker"),
    "noise reused across steps": (noise_reused_across_steps, "noise is used again"),
    "noise shared by layers": (noise_shared_by_layers, "more than declared"),
    "noise that the next step takes away": (noise_that_the_next_step_takes_away, "opposite"),
    "noise of another shape": (noise_of_another_shape, "not that of a Gaussian"),
    "a patient counted twice": (a_patient_counted_twice, "counts twice"),
    "a patient adds 2 C": (clip_twice_too_loose, "clipping is too loose"),
    "records drawn in place of patients": (records_drawn_in_place_of_patients, "counts twice"),
    "clip five times too loose": (clip_five_times_too_loose, "clipping is too loose"),
    "each layer clipped by itself": (each_layer_clipped_by_itself, "clipping is too loose"),
    "half the public batch size": (half_the_public_batch_size, "divided by less than the declared batch"),
    "drawn twice as often as declared": (drawn_twice_as_often_as_declared, "drawn too often"),
}
"""Each fault and some words of what the audit says about it."""

WASTEFUL = {
    "doubled noise": (doubled_noise, "accuracy is lost for nothing"),
    "clip twice too tight": (clip_twice_too_tight, "training loses"),
}
"""Faults that protect more than is claimed, and are faults all the same."""
