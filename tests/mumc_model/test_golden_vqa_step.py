"""One fine-tuning step and the ranking of the authors' own code; the recording lies outside the repository."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mumc_model.candidates import Candidates
from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.vqa import AnswerTeacher, VqaModel, answer_loss

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[3] / "shared" / "goldens"))
pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="set MUMC_GOLDENS to the folder of the recordings")

CONFIG = ModelConfig(
    vision=VisionConfig(image_size=64, patch_size=16, width=48, depth=3, heads=4),
    text=TextConfig(width=48, text_layers=3, fusion_layers=3, heads=4, vocab_size=200, max_positions=32),
    projection=16,
)
ALPHA, MOMENTUM = 0.4, 0.9


def ours(name):
    """The reference's question encoder is a BERT without the wrapper that pre-training has around it."""
    return name.replace("text_encoder.", "text_encoder.bert.") if name.startswith("text_encoder.") else name


def load(model, state, suffix=""):
    names = {
        ours(name.replace("_m.", ".", 1)): name for name in state if name.split(".")[0].endswith("_m") == bool(suffix)
    }
    weights = {name: state[theirs] for name, theirs in names.items() if not name.endswith("position_ids")}
    model.load_state_dict(weights)


@pytest.fixture(scope="module")
def recorded():
    return json.loads((GOLDENS / "vqa.json").read_text())


@pytest.fixture(scope="module")
def io():
    return load_file(GOLDENS / "vqa_io0.safetensors")


@pytest.fixture(scope="module")
def state():
    return load_file(GOLDENS / "vqa_state0.safetensors")


@pytest.fixture
def model(state):
    model = VqaModel(CONFIG, FinetuneConfig())
    load(model, state)
    return model


@pytest.fixture
def teacher(model, state):
    teacher = AnswerTeacher(model, MOMENTUM)
    load(teacher.model, state, "_m")
    return teacher


def step(model, teacher, io):
    """Loss, logits and states of the recorded batch, in the reference's order: average first, then ask the teacher."""
    learned = (io["in.answer_ids"] != 0).roll(-1, 1)
    learned[:, -1] = False

    def run(part):
        token = part.visual_encoder(io["in.image"])
        states = part.question_states(token, io["in.question_ids"], io["in.question_mask"])
        return states, part.answer_logits(states, io["in.question_mask"], io["in.answer_ids"], learned)

    teacher.update()
    with torch.no_grad():
        states_m, logits_m = run(teacher.model)
    states, logits = run(model)
    target = io["in.answer_ids"][:, 1:][learned[:, :-1]]
    return answer_loss(logits, target, logits_m, ALPHA, 4), states, states_m, logits, logits_m, learned


def test_a_training_step_agrees_with_the_reference(model, teacher, io):
    loss, states, states_m, logits, logits_m, learned = step(model, teacher, io)
    torch.testing.assert_close(states, io["out.question_states"], atol=2e-6, rtol=0)
    torch.testing.assert_close(states_m, io["out.question_states_m"], atol=2e-6, rtol=0)
    torch.testing.assert_close(logits, io["out.answer_logits"][learned], atol=2e-6, rtol=0)
    torch.testing.assert_close(logits_m, io["out.answer_logits_m_shifted"][learned[:, :-1]], atol=2e-6, rtol=0)
    torch.testing.assert_close(loss, io["out.loss"], atol=5e-6, rtol=0)


def test_gradients_agree_with_the_reference(model, teacher, io):
    loss, *_ = step(model, teacher, io)
    loss.backward()
    gradients = load_file(GOLDENS / "vqa_grads0.safetensors")
    mine = {name: weight.grad for name, weight in model.named_parameters()}
    theirs = {ours(name): gradient for name, gradient in gradients.items()}
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(mine[name], gradient, atol=1e-6 + 1e-5 * scale, rtol=0, msg=name)


def test_the_optimiser_step_leaves_the_reference_s_weights(model, teacher, io, recorded):
    optimiser = recorded["optimizer"]
    adamw = torch.optim.AdamW(
        model.parameters(), lr=optimiser["lr"], weight_decay=optimiser["weight_decay"], eps=optimiser["eps"]
    )
    step(model, teacher, io)[0].backward()
    adamw.step()
    after = load_file(GOLDENS / "vqa_state_after0.safetensors")
    expected = VqaModel(CONFIG, FinetuneConfig())
    for part, suffix in ((model, ""), (teacher.model, "_m")):
        load(expected, after, suffix)
        for name, weight in expected.state_dict().items():
            torch.testing.assert_close(part.state_dict()[name], weight, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize(("k", "dtype"), [(6, torch.float32), (12, torch.float32), (12, torch.float64)])
def test_the_compatible_ranking_agrees_with_the_reference(model, io, recorded, k, dtype):
    model.to(dtype).eval()
    candidates = Candidates.build(recorded["rank_answers"], io["rank.answer_ids"], io["rank.answer_mask"])
    mask = io["rank.question_mask"]
    with torch.no_grad():
        token = model.visual_encoder(io["rank.image"].to(dtype))
        states = model.question_states(token, io["rank.question_ids"], mask)
    probability = model.rank(states, mask, candidates, "compat")
    expected = recorded[f"rank{'64' if dtype is torch.float64 else ''}_k{k}"]
    ids = torch.tensor(expected["topk_ids"])
    among = probability.gather(1, ids)
    among /= among.sum(1, keepdim=True)
    tolerance = 1e-10 if dtype is torch.float64 else 5e-6
    torch.testing.assert_close(
        among.double(), torch.tensor(expected["topk_probs"], dtype=torch.float64), atol=tolerance, rtol=0
    )
