"""Parts of the encoders that a GPU may replay: what they read, when they are recorded, and that nothing changes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mumc_model import kernels
from mumc_model.config import ObjectiveConfig, OptimizerConfig, PretrainConfig, Recipe
from mumc_model.kernels import Graphs, eagerly, run_by
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import build_model
from mumc_model.momentum import Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.train import Pretrainer
from tests.mumc_model.conftest import CLS, MASK

SPECIAL = SpecialTokens(cls_id=CLS, mask_id=MASK)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")


def leaves(output):
    """Tensors that a result was computed from and that have a gradient, whichever way."""
    found, waiting, seen = [], [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [behind for behind, _ in node.next_functions]
    return found


def losses_through(part, small_config, batch):
    """Losses of a batch whose encoders run their parts by what is given."""
    model = build_model(small_config, 0)
    objective = PretrainObjective(model, Teacher(model), None, ObjectiveConfig())
    with run_by([(model, part)]):
        output = objective(batch, Draws(torch.Generator().manual_seed(0), SPECIAL), 0.4)
    assert model.visual_encoder.run_part is model.text_encoder.run_part is eagerly
    return output.terms


def test_a_part_reads_no_weights_but_those_of_its_modules(small_config, captioned):
    names = []

    def checked(modules, run, *tensors, form=()):
        inputs = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
        weights = [weight for module in modules for weight in module.parameters()]
        known = {id(tensor) for tensor in (*inputs, *weights)}
        assert all(id(leaf) in known for leaf in leaves(run(*inputs)))
        names.append(run.__name__)
        return run(*tensors)

    found = losses_through(checked, small_config, captioned())
    assert names == ["_tokens", "_encode", "fused"]
    expected = losses_through(eagerly, small_config, captioned())
    assert {name: float(loss) for name, loss in found.items()} == {n: float(loss) for n, loss in expected.items()}


def test_a_part_is_recorded_when_its_form_comes_again_and_each_form_apart(monkeypatch):
    recorded = []

    class Recording:
        pending = False

        def __init__(self, modules, run, tensors):
            recorded.append([tuple(tensor.shape) for tensor in tensors])

        def __call__(self, tensors):
            return torch.tensor(-1.0)

    monkeypatch.setattr(kernels, "_Recording", Recording)
    monkeypatch.setattr(kernels, "MOST_RECORDINGS", 2)
    graphs, layer = Graphs(), torch.nn.Linear(2, 2)

    def double(rows):
        return 2 * rows.sum()

    def call(rows, form=()):
        return float(graphs([layer], double, torch.ones(rows), form=form))

    assert [call(3), call(3), call(3)] == [6, -1, -1]
    assert [call(4), call(4)] == [8, -1]
    assert [call(3, form=1), call(3, form=1)] == [6, 6], "there is room for two"
    assert call(3) == -1
    assert recorded == [[(3,)], [(4,)]]


def test_a_recording_whose_gradient_is_still_to_come_is_not_replayed(monkeypatch):
    monkeypatch.setattr(kernels, "_Recording", lambda *_: SimpleNamespace(pending=True))
    graphs = Graphs()
    found = [float(graphs([torch.nn.Linear(1, 1)], torch.sum, torch.ones(5))) for _ in range(3)]
    assert found == [5, 5, 5]


def played(self, run, learning, device):
    """What a GPU records, computed anew at each replay and written to the same memory, as graphs do."""
    self._output, live = torch.empty(0), []
    learning = [tensor for tensor in (*self._inputs, *self._weights) if tensor.requires_grad]
    self._gradients = [torch.empty_like(tensor) for tensor in learning]

    def forward():
        for place in self._gradients:
            # Its memory may be what the forward pass keeps for the backward one.
            place.fill_(torch.nan)
        with torch.set_grad_enabled(self.learns):
            live[:] = [run(*self._inputs)]
        if not len(self._output):
            self._output, self._given = torch.empty_like(live[0]), torch.empty_like(live[0])
        self._output.detach().copy_(live[0].detach())

    def backward():
        found = torch.autograd.grad(live[0], learning, self._given, allow_unused=True)
        for place, gradient in zip(self._gradients, found, strict=True):
            place.copy_(torch.zeros_like(place) if gradient is None else gradient.to_dense())

    self._forward, self._backward = SimpleNamespace(replay=forward), SimpleNamespace(replay=backward)


def recipe_of(config, accumulation=1):
    """Steps that are long, and in proportion to their gradients: a wrong one shows, and a rounding error stays one."""
    optimizer = OptimizerConfig(lr=0.3, eps=1.0, weight_decay=0.0, warmup_steps=0)
    pretrain = PretrainConfig(batch_size=8, accumulation=accumulation, optimizer=optimizer)
    return Recipe(model=config, objective=ObjectiveConfig(distill_ramp_steps=0), pretrain=pretrain)


def trained(trainer, batches):
    """Losses of a step for each batch, and the weights before and after them."""
    before = {name: weight.cpu().clone() for name, weight in trainer.model.state_dict().items()}
    data, losses = SimpleNamespace(tokenizer=SPECIAL, batches=lambda *_: iter(batches)), []
    steps = {"first_step": 0, "steps": len(batches), "total_steps": len(batches)}
    trainer.run(data, **steps, seed=0, on_step=lambda _, told: losses.append(told["total"]))
    return losses, before, {name: weight.cpu() for name, weight in trainer.model.state_dict().items()}


def check_alike(recorded, eager, within=1e-5):
    """The same losses and weights, which the training has moved."""
    assert recorded[0] == pytest.approx(eager[0], rel=10 * within)
    torch.testing.assert_close(recorded[2], eager[2], atol=within, rtol=10 * within)
    assert max(float((eager[2][name] - start).abs().max()) for name, start in eager[1].items()) > 0.01


def test_steps_that_replay_their_parts_from_the_same_memory_give_the_weights_of_others(
    small_config, captioned, monkeypatch
):
    monkeypatch.setattr(kernels._Recording, "_record", played)
    recipe, batches = recipe_of(small_config), [captioned(8, seed) for seed in range(5)]
    eager, replaying = (Pretrainer(build_model(small_config, 0), recipe, torch.device("cpu")) for _ in range(2))
    replaying._parts = [(model, Graphs()) for model in (replaying.model, replaying.teacher.model)]
    check_alike(trained(replaying, batches), trained(eager, batches))
    assert [len(part._recorded) for _, part in replaying._parts] == [3, 3]


def test_a_recording_for_which_there_is_no_memory_is_left_out_and_no_other_is_tried(monkeypatch):
    tried = []

    def full(*_):
        tried.append(1)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(kernels, "_Recording", full)
    graphs = Graphs()
    found = [float(graphs([torch.nn.Linear(1, 1)], torch.sum, torch.ones(rows))) for rows in (5, 5, 5, 4, 4)]
    assert (found, tried) == ([5, 5, 5, 4, 4], [1])


def test_after_an_error_parts_are_replayed_again(small_config):
    graphs, model = Graphs(), build_model(small_config, 0)
    graphs._recorded = {"left": SimpleNamespace(pending=True)}
    with pytest.raises(KeyError), run_by([(model, graphs)]):
        raise KeyError
    assert not graphs._recorded["left"].pending


@on_a_gpu
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("bf16", 5e-3)])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["graphs", "compiled"])
def test_on_a_gpu_they_do_too_and_a_step_of_several_passes_replays_nothing(
    kind, accumulation, precision, within, small_config, captioned
):
    recipe, batches = recipe_of(small_config, accumulation), [captioned(8, seed) for seed in range(6)]
    eager, replaying = (
        Pretrainer(build_model(small_config, 0), recipe, torch.device("cuda"), precision, kernels=kernels_)
        for kernels_ in ("eager", kind)
    )
    check_alike(trained(replaying, batches), trained(eager, batches), within)
    assert [len(part._recorded) for _, part in replaying._parts] == ([3, 3] if accumulation == 1 else [])


@on_a_gpu
@pytest.mark.parametrize("kind", ["graphs", "compiled"])
def test_recorded_parts_drop_out_anew_at_each_step(kind, small_config, captioned):
    config = replace(small_config, text=replace(small_config.text, dropout=0.1))
    recipe = Recipe(model=config, objective=ObjectiveConfig(), pretrain=PretrainConfig(batch_size=4))
    trainer = Pretrainer(build_model(config, 0), recipe, torch.device("cuda"), kernels=kind)
    encoder, batch = trainer.model.text_encoder, captioned().to("cuda")
    trainer.model.train()
    with run_by(trainer._parts), torch.no_grad():
        found = [encoder.encode(batch.ids_BL, batch.mask_BL) for _ in range(5)]
    assert not any(torch.equal(one, other) for one in found[2:] for other in found[2:] if one is not other)
