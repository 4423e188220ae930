"""Three consecutive pre-training steps of the authors' own code; the recording lies outside the repository."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mumc_model.config import ModelConfig, ObjectiveConfig, TextConfig, VisionConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.masking import IGNORED, Draws
from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.vision import resize_pos_embed, sincos_pos_embed

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[3] / "shared" / "goldens"))
pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="set MUMC_GOLDENS to the folder of the recordings")

CONFIG = ModelConfig(
    vision=VisionConfig(image_size=64, patch_size=16, width=48, depth=3, heads=4),
    text=TextConfig(width=48, text_layers=3, fusion_layers=3, heads=4, vocab_size=200, max_positions=32),
    projection=16,
    queue_size=64,
)
ALPHA, MOMENTUM = 0.4, 0.9
LOSS, FEATURE, GRADIENT, LOGIT = 2e-6, 4e-6, 4e-6, 2e-5
"""Absolute tolerances. Similarities are over a temperature of 0.07 and of size 14, hence the last."""


class Recorded(Draws):
    """Plays the random choices of one recorded step back."""

    def __init__(self, io):
        self.keeps = [io["rand.vis_ids_keep"], io["rand.vis_m_ids_keep"]]
        self.tokens = io["rand.mlm_input_ids"], io["rand.mlm_labels"]
        self.drawn = [io["rand.itm_neg_image_idx"], io["rand.itm_neg_text_idx"]]

    def keep_patches(self, batch, patches, drop):
        return self.keeps.pop(0)

    def mask_tokens(self, ids_BL, mask_BL, probability, vocab_size):
        return self.tokens

    def negatives(self, weights_BB):
        return self.drawn.pop(0)


class Run:
    """Our parts with the recorded weights, from before the first step."""

    def __init__(self, dtype=torch.float32):
        state = {
            name: weight.to(dtype) if weight.is_floating_point() else weight
            for name, weight in load_file(GOLDENS / "pretrain_state0.safetensors").items()
        }
        self.model = build_model(CONFIG, 0).to(dtype)
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.teacher = Teacher(self.model)
        self.teacher.model.load_state_dict(
            {name: state[momentum_name(name)] for name in self.teacher.model.state_dict()}
        )
        self.queue = FeatureQueue(64, 16).to(dtype)
        self.queue.enqueue(state["image_queue"].T, state["text_queue"].T, torch.arange(64))
        self.queue.features()
        self.queue.pointer = int(state["queue_ptr"])
        self.objective = PretrainObjective(self.model, self.teacher, self.queue, ObjectiveConfig(momentum=MOMENTUM))
        # The recorded epsilon keeps the gradients of key biases, which are exactly zero, from becoming steps of +-lr.
        self.optimizer = torch.optim.AdamW(
            [weight for weight in self.model.parameters() if weight.requires_grad], lr=1e-2, weight_decay=0.05, eps=1e-3
        )

    def step(self, io, dtype=torch.float32):
        batch = PretrainBatch(
            image_BCHW=io["in.image"].to(dtype),
            ids_BL=io["in.input_ids"],
            mask_BL=io["in.attention_mask"],
            caption_id_B=torch.arange(8),
        )
        output = self.objective(batch, Recorded(io), ALPHA)
        self.optimizer.zero_grad()
        output.total.backward()
        return output


def momentum_name(name):
    first, rest = name.split(".", 1)
    return f"{first}_m.{rest}"


def recording(step):
    return load_file(GOLDENS / f"pretrain_io{step}.safetensors")


def deviations(ours, theirs):
    return {name: float((ours[name].detach() - theirs[name]).abs().max()) for name in ours}


def recorded_of(trace, io):
    """The recorded counterpart of each tensor of the trace; token scores at the masked tokens only."""
    masked_BL = io["rand.mlm_labels"] != IGNORED
    return {name: io[f"out.{name}"][masked_BL] if "mlm_logits" in name else io[f"out.{name}"] for name in trace}


@pytest.fixture(scope="module")
def run():
    """All three steps, each with what it left behind."""
    run, steps = Run(), []
    for index in range(3):
        output = run.step(recording(index))
        gradients = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.requires_grad}
        run.optimizer.step()
        image_QE, text_QE, _ = run.queue.features()
        weights = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
        teacher = {name: weight.clone() for name, weight in run.teacher.model.named_parameters()}
        steps.append((output, gradients, weights, teacher, image_QE.clone(), text_QE.clone(), run.queue.pointer))
    return steps


@pytest.mark.parametrize("step", range(3))
def test_every_loss_agrees(run, step):
    output, io = run[step][0], recording(step)
    recorded = {
        "mcl": (io["out.loss_i2t"] + io["out.loss_t2i"]) / 2,
        "ucl": (io["out.loss_i2i"] + io["out.loss_t2t"]) / 4,
        "itm": io["out.loss_itm"],
        "mlm": io["out.loss_mlm"],
    }
    assert set(output.terms) == set(recorded)
    assert max(deviations(output.terms, recorded).values()) <= LOSS
    assert abs(float(output.total.detach() - io["out.loss_total"])) <= LOSS


@pytest.mark.parametrize("step", range(3))
def test_what_the_losses_are_made_of_agrees(run, step):
    trace, io = run[step][0].trace, recording(step)
    differences = deviations(trace, recorded_of(trace, io))
    assert len(differences) == 24
    for name, difference in differences.items():
        tolerance = LOSS if name.startswith("loss_") else LOGIT if name.startswith("sim_") else FEATURE
        assert difference <= tolerance, name


def test_the_gradient_of_every_weight_agrees(run):
    gradients, recorded = run[0][1], load_file(GOLDENS / "pretrain_grads0.safetensors")
    assert set(gradients) == set(recorded)
    differences = deviations(gradients, recorded)
    assert max(differences.values()) <= GRADIENT
    assert all(differences[name] <= 1e-6 for name in differences if name.endswith("self.key.bias"))


@pytest.mark.parametrize("step", [0, 2])
def test_weights_and_teacher_agree_after_the_optimiser(run, step):
    _, _, weights, teacher, *_ = run[step]
    recorded = load_file(GOLDENS / f"pretrain_state_after{step}.safetensors")
    assert max(deviations(weights, recorded).values()) <= FEATURE
    assert max(deviations(teacher, {name: recorded[momentum_name(name)] for name in teacher}).values()) <= FEATURE


@pytest.mark.parametrize("step", range(3))
def test_the_queue_agrees_and_wraps(run, step):
    *_, image_QE, text_QE, pointer = run[step]
    io = recording(step)
    assert pointer == int(io["post.queue_ptr"])
    torch.testing.assert_close(image_QE.T, io["post.image_queue"], atol=FEATURE, rtol=0)
    torch.testing.assert_close(text_QE.T, io["post.text_queue"], atol=FEATURE, rtol=0)


def test_in_double_precision_the_first_step_agrees_to_twelve_digits():
    output = Run(torch.float64).step(recording(0), torch.float64)
    recorded = json.loads((GOLDENS / "pretrain.json").read_text())["float64_step0"]
    # The sum loss_ita was recorded in single precision, so its parts are compared.
    ours = {name: float(part) for name, part in output.trace.items() if name in recorded}
    ours |= {f"loss_{name}": float(output.terms[name]) for name in ("itm", "mlm")}
    assert len(ours) == 8
    assert ours == pytest.approx({name: recorded[name] for name in ours}, rel=1e-12)
    exact = load_file(GOLDENS / "pretrain_f64_step0.safetensors")
    features = {name: output.trace[name] for name in ("image_embeds", "image_feat", "text_feat", "itm_logits")}
    assert max(deviations(features, {name: exact[f"out.{name}"] for name in features}).values()) < 1e-13


def test_position_tables_agree_and_so_does_their_interpolation():
    recorded = load_file(GOLDENS / "pos_embed.safetensors")
    torch.testing.assert_close(sincos_pos_embed(48, 4), recorded["sincos_48_grid4"], atol=1e-7, rtol=0)
    torch.testing.assert_close(resize_pos_embed(recorded["pos_embed_16"], 36), recorded["pos_embed_36"])
