"""Faults in the text of the trainers' own loops: the source is rewritten in one place, and run as it then stands."""

import inspect
import textwrap

import torch

from client.privacy import finetune_train, metrics, steps, train
from client.privacy.finetune_train import PrivateFinetuner
from client.privacy.train import PrivatePretrainer


def step_without_noise(optimizer):
    optimizer.clip_and_accumulate()
    for weight in optimizer.params:
        weight.grad = weight.summed_grad
    optimizer.scale_grad()
    optimizer.original_optimizer.step()


def step_noised_twice(optimizer):
    optimizer.clip_and_accumulate()
    optimizer.add_noise()
    for weight in optimizer.params:
        weight.summed_grad = weight.grad
    optimizer.step()


def step_that_keeps_its_sum(optimizer):
    kept = [None if weight.summed_grad is None else weight.summed_grad.clone() for weight in optimizer.params]
    optimizer.step()
    for weight, summed in zip(optimizer.params, kept, strict=True):
        weight.summed_grad = summed


def clip_the_sum(weights, clipping_norm):
    sums = [weight.summed_grad for weight in weights.values()]
    length = torch.stack([summed.square().sum() for summed in sums]).sum().sqrt()
    for summed in sums:
        summed *= min(1.0, clipping_norm / float(length))


FAULTY = {
    part.__name__: part for part in (step_without_noise, step_noised_twice, step_that_keeps_its_sum, clip_the_sum)
}


def rewritten(function, *edits):
    """The function with each of these pieces of its text, which must be there once, put in another's place."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in edits:
        assert source.count(old) == 1, f"{old!r} is not once in {function.__qualname__}: give the fault its new place"
        source = source.replace(old, new)
    found = {}
    exec(compile(source, f"<faulty {function.__qualname__}>", "exec"), {**function.__globals__, **FAULTY}, found)
    return found[function.__name__]


def _steps(*edits):
    return lambda patch: patch.setattr(train, "take_steps", rewritten(steps.take_steps, *edits))


def _train(name, *edits):
    return lambda patch: patch.setattr(PrivatePretrainer, name, rewritten(getattr(PrivatePretrainer, name), *edits))


_STEP, _CLEAR = "optimizer.step()", "clear(optimizer.params)"
_CLIP, _SPLIT = "units, privacy.clipping_norm)", "row_S.split(privacy.physical_batch)"

LOOP_MUTATIONS = {
    "a step without noise": (_steps((_STEP, "step_without_noise(optimizer)")), "privacy is weaker"),
    "a step noised twice": (_steps((_STEP, "step_noised_twice(optimizer)")), "accuracy is lost for nothing"),
    "a step taken twice": (_steps((_STEP, f"{_STEP}; {_STEP}")), "accuracy is lost for nothing"),
    "a sum kept for the next step": (
        _steps((_STEP, "step_that_keeps_its_sum(optimizer)"), (_CLEAR, "pass")),
        "count too much",
    ),
    "one sample for all steps": (
        _steps(("for step in numbers:", "draw = lambda once=draw(): once\n        for step in numbers:")),
        "effect over many steps: smaller than declared",
    ),
    "half the noise": (
        _train("_private", ("noise_multiplier=privacy.noise_multiplier", "noise_multiplier=0.5")),
        "privacy is weaker",
    ),
    "half the public batch": (
        _train("_private", ("1 if whole else privacy.expected_batch", "privacy.expected_batch / 2")),
        "divided by less than the declared batch",
    ),
    "the mean over the true batch": (
        _train("run", ("return self._sum(", "optimizer.expected_batch_size = max(1, len(row_S)); return self._sum(")),
        "privacy is weaker",
    ),
    "no clipping": (_train("_sum", (_CLIP, "units, 1e9)")), "clipping is too loose"),
    "clipping after the sum": (
        _train(
            "_sum",
            (_CLIP, "units, 1e9)"),
            ("return _means(seen)", "clip_the_sum(self.weights, privacy.clipping_norm); return _means(seen)"),
        ),
        "training loses",
    ),
    "clipping looser than the noise": (_train("_sum", (_CLIP, "units, 2 * privacy.clipping_norm)")), "too loose"),
    "a physical batch left out": (_train("_sum", (_SPLIT, f"{_SPLIT}[:-1]")), "cut too short"),
    "a physical batch taken twice": (_train("_sum", (_SPLIT, f"{_SPLIT} + {_SPLIT}[:1]")), "count too much"),
    "records that may not be used": (_train("run", ("site.rows[row_S]", "row_S")), "less far than declared"),
    "records drawn in place of patients": (_train("run", ("site.units,", "range(len(site.units)),")), "counts twice"),
    "drawn twice as often": (
        _train("run", ("site.sample_rate,", "min(1.0, 2 * site.sample_rate),")),
        "drawn too often",
    ),
    "steps not counted": (_train("run", ("optimizer.attach_step_hook(self._count)", "pass")), "charge too little"),
}
"""Each fault and some words of what the audit says about it."""


def _finetune(name, *edits):
    return lambda patch: patch.setattr(PrivateFinetuner, name, rewritten(getattr(PrivateFinetuner, name), *edits))


FINETUNE_MUTATIONS = {
    "a step without noise": (
        lambda patch: patch.setattr(
            finetune_train, "take_steps", rewritten(steps.take_steps, (_STEP, "step_without_noise(optimizer)"))
        ),
        "privacy is weaker",
    ),
    "half the noise": (
        _finetune("_private", ("noise_multiplier=privacy.noise_multiplier", "noise_multiplier=0.5")),
        "privacy is weaker",
    ),
    "half the public batch": (
        _finetune("_private", ("=privacy.expected_batch", "=privacy.expected_batch / 2")),
        "divided by less than the declared batch",
    ),
    "no clipping": (_finetune("_sum", (_CLIP, "units, 1e9)")), "clipping is too loose"),
    "a physical batch left out": (_finetune("_sum", (_SPLIT, f"{_SPLIT}[:-1]")), "cut too short"),
    "questions drawn in place of patients": (
        _finetune("run", ("PoissonSampler(questions.units", "PoissonSampler(range(len(questions.units))")),
        "counts twice",
    ),
    "drawn twice as often": (_finetune("run", ("sample_rate, self", "min(1.0, 2 * sample_rate), self")), "too often"),
    "steps not counted": (_finetune("run", ("optimizer.attach_step_hook(self._count)", "pass")), "charge too little"),
}
"""The same of private fine-tuning."""


def _metrics(name, *edits):
    return lambda patch: patch.setattr(metrics, name, rewritten(getattr(metrics, name), *edits))


no_noise_in_right_answers = _metrics("release", ("noise_2) / step", "noise_2 * (0, 1)) / step"))

METRICS_MUTATIONS = {
    "half the noise": (
        _metrics("release", ("+ deviation * noise_2", "+ deviation * noise_2 / 2")),
        "privacy is weaker",
    ),
    "noise of a smaller sensitivity": (_metrics("release", ("* SENSITIVITY", "/ SENSITIVITY")), "privacy is weaker"),
    "questions counted in place of patients": (
        _metrics("correctness", ("setdefault(unit, [])", "setdefault(f'{unit} {len(answers)}', [])")),
        "counts twice",
    ),
    "correctness doubled": (
        _metrics("total", ("round(_FINE * correct) - _FINE // 2", "2 * round(_FINE * correct)")),
        "further than the clipping norm allows",
    ),
    "one noise for all": (
        _metrics("release", ("source.normals(2)", "SecureSource(bytes(32)).normals(2)")),
        "noise is used again",
    ),
    "charged for nothing": (_metrics("event", ("steps=1", "steps=0")), "charge too little"),
}
"""The same of the release of metrics."""
