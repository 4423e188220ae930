import shutil
import zlib

import numpy as np
import pytest
import torch

from client.config import read_site_config
from client.pretrain import caption_dataset
from client.site import Site
from client.state import RunState
from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.data.records import read_site
from mumc_model.model import build_model
from mumc_model.sharing import is_shared, load_shared, shared_weights
from mumc_model.train import Pretrainer, PretrainResult

HEAD_BIAS = "text_encoder.cls.predictions.bias"


def same(one, other):
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def steps_that(change):
    """What stands in for training: `change(name, weight)` on every weight of the model."""

    def run(trainer, dataset, **_):
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                change(name, weight)
        return PretrainResult(steps=1, examples=1, losses={"total": 1.0}, seconds=0.0, waited=0.0)

    return run


def number(name):
    """A small whole number that belongs to a name."""
    return zlib.crc32(name.encode()) % 100 + 1


def test_the_update_is_after_minus_before_under_the_name_of_each_shared_weight(server, folder, monkeypatch):
    monkeypatch.setattr(Pretrainer, "run", steps_that(lambda name, weight: weight.add_(number(name))))
    base = {dtype: np.full_like(flat, 7.0) for dtype, flat in server.base.items()}
    update = server.named(server.ask(folder, server.pretrain(base=base), base).arrays)
    assert {name: set(np.unique(weight)) for name, weight in update.items()} == {
        name: {number(name)} for name in update
    }


def test_what_trains_in_the_private_heads_moves_no_byte_of_the_update(server, folder, monkeypatch):
    monkeypatch.setattr(
        Pretrainer, "run", steps_that(lambda name, weight: weight.add_(0.0 if is_shared(name) else 1.0))
    )
    answer = server.ask(folder, server.pretrain())
    assert answer.arrays.keys() == server.base.keys()
    assert not any(flat.any() for flat in answer.arrays.values())


def test_every_travelling_name_is_a_shared_weight_and_no_head_teacher_queue_or_decoder(server, folder):
    names = server.named(server.ask(folder, server.pretrain()).arrays).keys()
    assert names == shared_weights(build_model(server.recipe.model, 0)).keys()
    assert all(map(is_shared, names))
    assert not [name for name in names for part in ("_m.", "queue", "decoder", ".cls.", "moment") if part in name]


def test_the_update_is_that_of_the_trainer_on_this_site_s_captions(server, folder):
    order = server.pretrain()
    update = server.named(server.ask(folder, order).arrays)
    site = Site(root=folder, config=read_site_config(folder), data=read_site(folder))
    model = build_model(server.recipe.model, site.seed())
    before = {name: torch.tensor(weight) for name, weight in server.named(server.base).items()}
    load_shared(model, before)
    dataset = caption_dataset(site, server.recipe, order.vocabulary)
    seed = site.seed(order.seed)
    Pretrainer(model, server.recipe, torch.device("cpu")).run(dataset, first_step=0, steps=2, total_steps=4, seed=seed)
    after = shared_weights(model)
    assert same(update, {name: (after[name] - before[name]).numpy() for name in after})
    assert any(weight.any() for weight in update.values())


def test_the_report_names_its_order_its_captions_and_finite_losses(server, folder):
    order, captions = server.pretrain(), (folder / "captions.jsonl").read_text().count("\n")
    report = server.ask(folder, order).message
    assert (report.run_id, report.round, report.attempt) == (order.run_id, order.round, order.attempt)
    assert (report.site, report.examples, report.base_digest) == ("hospital-1", captions, order.base_digest)
    assert report.metrics["total"] > 0


def test_weights_that_are_not_those_of_the_order_are_refused_before_any_training(server, folder):
    other = {dtype: flat + 1 for dtype, flat in server.base.items()}
    answer = server.ask(folder, server.pretrain(), other)
    assert (answer.message.code, answer.arrays) == ("stale", {})
    assert not (folder / "state" / "runs").exists()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda base: {}, "missing_weights"),
        (lambda base: base | {"float64": np.zeros(1)}, "unexpected_weights"),
        (lambda base: {dtype: flat[:-1] for dtype, flat in base.items()}, "wrong_shape"),
    ],
)
def test_weights_of_another_model_are_refused_by_their_fault(server, folder, spoil, code):
    assert server.ask(folder, server.pretrain(), spoil(server.base)).message.code == code


def test_a_round_done_again_gives_the_same_bits_even_after_the_next_one(server, folder):
    first = server.ask(folder, server.pretrain())
    second = server.ask(folder, server.pretrain(2))
    for order, answer in ((server.pretrain(2), second), (server.pretrain(), first)):
        again = server.ask(folder, order)
        assert again.message == answer.message
        assert same(again.arrays, answer.arrays)
    assert not same(first.arrays, second.arrays)


def test_a_round_goes_on_from_the_heads_that_the_round_before_left(server, folder):
    server.ask(folder, server.pretrain())
    kept = folder / "state" / "runs" / "trial" / "pretrain-after-round-00001.safetensors"
    weights = load_weights(kept)
    save_weights(kept, weights | {HEAD_BIAS: torch.full_like(weights[HEAD_BIAS], 5.0)})
    server.ask(folder, server.pretrain(2))
    bias = RunState.of(folder, "trial").private_weights(before_round=3)[HEAD_BIAS]
    assert (bias - 5).abs().max() < 0.1


def test_after_a_missed_round_the_heads_start_anew(server, folder):
    server.ask(folder, server.pretrain())
    late = server.ask(folder, server.pretrain(3))
    shutil.rmtree(folder / "state" / "runs")
    assert same(server.ask(folder, server.pretrain(3)).arrays, late.arrays)


def test_a_site_without_captions_refuses_with_the_code_of_its_data(server, folder):
    (folder / "captions.jsonl").unlink()
    assert server.ask(folder, server.pretrain()).message.code == "data"
