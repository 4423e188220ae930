"""Local pre-training: its rates, its repeatability, what it keeps and what it refuses."""

from dataclasses import replace
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
import torch

from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.config import ObjectiveConfig, OptimizerConfig, PretrainConfig, Recipe
from mumc_model.device import autocast, choose_device
from mumc_model.errors import CheckpointError, ConfigError, DeviceError, DivergedError
from mumc_model.model import build_model
from mumc_model.schedule import learning_rate, ramped
from mumc_model.sharing import is_shared, load_shared, shared_weights
from mumc_model.train import Pretrainer

CPU = torch.device("cpu")


class Noise:
    """Captioned noise in place of a site's data; remembers what it was asked for."""

    tokenizer = SimpleNamespace(cls_id=2, mask_id=4)

    def __init__(self, make, pairs=None):
        self.make, self.pairs, self.asked = make, pairs, []

    def batches(self, batch_size, seed, start_step=0):
        self.asked.append((batch_size, seed, start_step))
        return (self.make(self.pairs or batch_size, seed=1000 * seed + step) for step in count(start_step))


@pytest.fixture
def data(captioned):
    return Noise(captioned)


@pytest.fixture
def recipe(small_config):
    return Recipe(
        model=replace(small_config, queue_size=8),
        objective=ObjectiveConfig(patch_drop=0.25, mlm_probability=0.4, momentum=0.9),
        pretrain=PretrainConfig(optimizer=OptimizerConfig(lr=1e-2, clip_norm=1.0), batch_size=4),
    )


def trainer(recipe, seed=0, **pretrain):
    return Pretrainer(
        build_model(recipe.model, seed), replace(recipe, pretrain=replace(recipe.pretrain, **pretrain)), CPU
    )


def round_of(subject, data, first_step=0, steps=3, seed=5, **extra):
    return subject.run(data, first_step=first_step, steps=steps, total_steps=30, seed=seed, **extra)


def distance(a, b):
    return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5


def test_the_rate_warms_up_falls_as_a_cosine_and_ends_at_its_share():
    config = OptimizerConfig(lr=1.0, warmup_steps=4, final_lr_share=0.1)
    rates = [learning_rate(step, config, 104, 0) for step in range(105)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(rates[3:]))


def test_a_later_round_warms_up_again_and_the_first_does_not():
    config = OptimizerConfig(lr=1.0, schedule="constant", rewarm_steps=4)
    assert [learning_rate(step, config, 40, 20) for step in range(20, 26)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(0, config, 40, 0) == 1.0


def test_an_exponential_rate_falls_by_the_same_factor_everywhere_and_needs_an_end():
    config = OptimizerConfig(lr=1.0, schedule="exponential", final_lr_share=0.01)
    rates = [learning_rate(step, config, 10, 0) for step in (0, 5, 10)]
    assert rates == pytest.approx([1.0, 0.1, 0.01])
    with pytest.raises(ConfigError, match="final_lr_share above 0"):
        learning_rate(0, OptimizerConfig(schedule="exponential"), 10, 0)


def test_a_device_or_precision_that_is_not_here_is_refused_with_the_remedy():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu0", "xla:3"):
        with pytest.raises(DeviceError, match="set device to auto or cpu"):
            choose_device(name)
    with pytest.raises(DeviceError, match="choose fp32 or bf16"):
        autocast(CPU, "fp8")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(recipe, data):
    weights = []
    for seed in (5, 5, 6):
        subject = trainer(recipe)
        round_of(subject, data, seed=seed)
        weights.append(shared_weights(subject.model))
    assert distance(weights[0], weights[1]) == 0
    assert distance(weights[0], weights[2]) > 0


def test_dropout_is_repeatable_too_and_the_process_random_state_stays(recipe, data):
    config = replace(recipe.model, text=replace(recipe.model.text, dropout=0.1))
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        results.append(round_of(trainer(replace(recipe, model=config)), data).losses)
        state = torch.get_rng_state()
        torch.manual_seed(noise)
        build_model(config, 0)
        assert torch.equal(state, torch.get_rng_state())
    assert results[0] == results[1]


def test_training_lowers_the_loss_and_reports_every_term_as_a_mean(recipe, captioned):
    class Same(Noise):
        def batches(self, batch_size, seed, start_step=0):
            while True:
                yield self.make(batch_size)

    seen = []
    model, objective = replace(recipe.model, queue_size=0), replace(recipe.objective, mim=0.5, distill=0.0)
    subject = trainer(replace(recipe, model=model, objective=objective))
    result = round_of(subject, Same(captioned), steps=30, on_step=lambda step, losses: seen.append((step, losses)))
    assert (result.steps, result.examples) == (30, 120)
    assert [step for step, _ in seen] == list(range(30))
    assert set(result.losses) == {"total", "mcl", "ucl", "itm", "mlm", "mim"}
    totals = [losses["total"] for _, losses in seen]
    assert result.losses["total"] == pytest.approx(sum(totals) / 30)
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_a_round_starts_at_its_step_with_teacher_and_queue_renewed(recipe, data):
    subject = trainer(recipe)
    round_of(subject, data)
    other = build_model(recipe.model, 9)
    load_shared(subject.model, shared_weights(other))
    round_of(subject, data, first_step=3, steps=0)
    taught, learned = subject.teacher.model.state_dict(), subject.model.state_dict()
    assert all(torch.equal(taught[name], learned[name]) for name in taught)
    assert len(subject.queue.features()[0]) == 0
    assert data.asked == [(4, 5, 0), (4, 5, 3)]


def test_what_is_kept_makes_a_new_process_go_on_as_the_old_one(recipe, data, tmp_path):
    recipe = replace(recipe, objective=replace(recipe.objective, mim=0.5))
    old = trainer(recipe)
    round_of(old, data)
    save_weights(tmp_path / "kept.safetensors", old.state_dict())
    new = trainer(recipe, seed=1)
    load_shared(new.model, shared_weights(old.model))
    new.load_state_dict(load_weights(tmp_path / "kept.safetensors"))
    ends = []
    for subject in (old, new):
        round_of(subject, data, first_step=3)
        ends.append(shared_weights(subject.model) | subject.state_dict())
    assert distance(*ends) == 0


def test_nothing_shared_and_no_teacher_is_kept(recipe, data):
    subject = trainer(recipe)
    assert all(name.startswith("text_encoder.cls.") for name in subject.state_dict())
    round_of(subject, data, steps=1)
    kept = subject.state_dict()
    assert not any(is_shared(name) for name in kept)
    moments = [name for name in kept if name.startswith("optimizer.")]
    trained = [name for name, weight in subject.model.named_parameters() if weight.requires_grad]
    assert len(moments) == 3 * len(trained)
    assert set(trainer(recipe, keep_optimizer=False).state_dict()) == {n for n in kept if n not in moments}


def test_kept_weights_of_another_model_are_refused(recipe):
    subject = trainer(recipe)
    state = subject.state_dict()
    state["text_encoder.cls.predictions.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="kept from the last round"):
        subject.load_state_dict(state)


def test_the_proximal_pull_keeps_a_site_nearer_to_where_it_began(recipe, data):
    distances = []
    for mu in (0.0, 10.0):
        subject = trainer(recipe, prox_mu=mu)
        start = shared_weights(subject.model)
        round_of(subject, data, steps=6)
        distances.append(distance(start, shared_weights(subject.model)))
    assert distances[1] < 0.9 * distances[0]


def test_an_accumulated_step_is_one_step_with_the_mean_of_its_parts(recipe, captioned):
    class Twice(Noise):
        """Two equal halves, so that the parts of an accumulated step agree but for what is drawn."""

        def batches(self, batch_size, seed, start_step=0):
            while True:
                half = captioned(batch_size // 2)
                yield type(half)(*(torch.cat([part, part]) for part in vars(half).values()))

    plain = ObjectiveConfig(mcl=1, ucl=1, itm=0, mlm=0, patch_drop=0.0)
    # A large epsilon, or Adam's first step would be the mere sign of gradients that differ by rounding alone.
    pretrain = replace(recipe.pretrain, optimizer=replace(recipe.pretrain.optimizer, eps=1e-3))
    recipe = replace(recipe, objective=plain, model=replace(recipe.model, queue_size=0), pretrain=pretrain)
    whole, halves = trainer(recipe, batch_size=4), trainer(recipe, batch_size=8, accumulation=2)
    losses = [round_of(subject, Twice(captioned, None), steps=1).losses for subject in (whole, halves)]
    half = trainer(recipe, batch_size=4)
    expected = round_of(half, Noise(lambda pairs, seed: captioned(4)), steps=1).losses
    assert losses[1] == pytest.approx(expected)
    assert losses[0] != pytest.approx(expected)
    assert distance(shared_weights(halves.model), shared_weights(half.model)) < 1e-4


def test_a_site_with_few_images_is_not_cut_into_parts_without_negatives(recipe, captioned):
    result = round_of(trainer(recipe, batch_size=8, accumulation=4), Noise(captioned, pairs=3), steps=2)
    assert result.examples == 6


def test_a_loss_that_is_no_number_stops_the_round(recipe, data):
    subject = trainer(recipe)
    subject.model.vision_proj.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="at step 3; lower"):
        round_of(subject, data, first_step=3)


def test_bf16_trains_to_finite_single_precision_weights(recipe, data):
    subject = Pretrainer(build_model(recipe.model, 0), recipe, CPU, "bf16")
    round_of(subject, data)
    for weight in shared_weights(subject.model).values():
        assert weight.dtype == torch.float32
        assert torch.isfinite(weight).all()


def test_alpha_rises_over_its_ramp(recipe):
    objective = replace(recipe.objective, distill=0.4, distill_ramp_steps=4)
    assert [ramped(objective, step) for step in (0, 2, 4, 9)] == pytest.approx([0.0, 0.2, 0.4, 0.4])
    assert ramped(replace(objective, distill_ramp_steps=0), 0) == pytest.approx(0.4)
