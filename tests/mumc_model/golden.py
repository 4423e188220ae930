"""What the authors' own code did, recorded step by step, and ours replayed beside it.

The recording lies outside the repository, in the folder that `MUMC_GOLDENS` names, and says itself how large its model
is. `benchmarks/parity.py` prints the deviations that the tests bound.
"""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mumc_model.candidates import Candidates
from mumc_model.config import FinetuneConfig, ModelConfig, ObjectiveConfig, TextConfig, VisionConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.masking import IGNORED, Draws
from mumc_model.model import build_model
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective, PretrainOutput
from mumc_model.reference import ours
from mumc_model.vqa import AnswerTeacher, VqaModel, answer_loss

GOLDENS = Path(os.environ.get("MUMC_GOLDENS", Path(__file__).parents[3] / "shared" / "goldens"))
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="set MUMC_GOLDENS to the folder of the recordings")

STEPS = 3


def facts(name: str) -> dict[str, Any]:
    """A recording's JSON file."""
    return dict(json.loads((GOLDENS / f"{name}.json").read_text()))


def tensors(name: str) -> dict[str, Tensor]:
    """A recording's tensors."""
    return dict(load_file(GOLDENS / f"{name}.safetensors"))


def model_config(recorded: dict[str, Any]) -> ModelConfig:
    """The size of the recorded model."""
    size = recorded["config"]
    return ModelConfig(
        vision=VisionConfig(
            image_size=size["img"],
            patch_size=16,
            width=size["vit_width"],
            depth=size["vit_depth"],
            heads=size["vit_heads"],
        ),
        text=TextConfig(
            width=size["hidden"],
            text_layers=size["fusion"],
            fusion_layers=size["layers"] - size["fusion"],
            heads=size["heads"],
            vocab_size=size["vocab"],
            max_positions=size["max_pos"],
            dropout=size["dropout"],
        ),
        projection=size["embed"],
        queue_size=size["queue"],
    )


def momentum_name(name: str) -> str:
    """The reference's name of a teacher's weight."""
    first, rest = name.split(".", 1)
    return f"{first}_m.{rest}"


def deviation(mine: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference."""
    return float((mine.detach() - theirs).abs().max())


def optimiser(recorded: dict[str, Any], weights: list[Tensor]) -> torch.optim.AdamW:
    """The recorded AdamW. Its large epsilon keeps the gradients of key biases, exactly zero, from becoming steps."""
    settings = {name: value for name, value in recorded["optimizer"].items() if name != "name"}
    return torch.optim.AdamW(weights, **settings)


class Recorded(Draws):
    """Plays the random choices of one recorded step back."""

    def __init__(self, io: dict[str, Tensor]) -> None:
        self.keeps = [io["rand.vis_ids_keep"], io["rand.vis_m_ids_keep"]]
        self.tokens = io["rand.mlm_input_ids"], io["rand.mlm_labels"]
        self.drawn = [io["rand.itm_neg_image_idx"], io["rand.itm_neg_text_idx"]]

    def keep_patches(self, batch, patches, drop):
        return self.keeps.pop(0)

    def mask_tokens(self, ids_BL, mask_BL, probability, vocab_size):
        return self.tokens

    def negatives(self, weights_BB):
        return self.drawn.pop(0)


class Pretraining:
    """Our parts with the recorded weights, from before the first step."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.facts, self.dtype = facts("pretrain"), dtype
        state = {
            name: weight.to(dtype) if weight.is_floating_point() else weight
            for name, weight in tensors("pretrain_state0").items()
        }
        config = model_config(self.facts)
        self.model = build_model(config, 0).to(dtype)
        self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
        self.teacher = Teacher(self.model)
        self.teacher.model.load_state_dict(
            {name: state[momentum_name(name)] for name in self.teacher.model.state_dict()}
        )
        self.queue = FeatureQueue(config.queue_size, config.projection).to(dtype)
        self.queue.enqueue(state["image_queue"].T, state["text_queue"].T, torch.arange(config.queue_size))
        self.queue.features()
        self.queue.pointer = int(state["queue_ptr"])
        objective = ObjectiveConfig(momentum=self.facts["config"]["momentum"], teacher_order="mumc")
        self.objective = PretrainObjective(self.model, self.teacher, self.queue, objective)
        learned = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = optimiser(self.facts, learned)

    def step(self, io: dict[str, Tensor]) -> PretrainOutput:
        """The losses of one recorded batch, and gradients on the weights."""
        batch = PretrainBatch(
            image_BCHW=io["in.image"].to(self.dtype),
            ids_BL=io["in.input_ids"],
            mask_BL=io["in.attention_mask"],
            caption_id_B=torch.arange(len(io["in.image"])),
        )
        output = self.objective(batch, Recorded(io), self.facts["alpha"])
        self.optimizer.zero_grad()
        output.total.backward()
        return output

    def deviations(self, steps: int = STEPS) -> dict[str, float]:
        """The largest deviation of every quantity over consecutive steps, each from the weights that the last left."""
        found: dict[str, float] = {}

        def note(name: str, value: float) -> None:
            found[name] = max(found.get(name, 0.0), value)

        for index in range(steps):
            io = tensors(f"pretrain_io{index}")
            output = self.step(io)
            for name, value in compared(output, io).items():
                note(name, value)
            if index == 0:
                theirs = tensors("pretrain_grads0")
                mine = {name: weight.grad for name, weight in self.model.named_parameters() if weight.requires_grad}
                assert mine.keys() == theirs.keys()
                note("gradients", max(deviation(mine[name], theirs[name]) for name in theirs))
            self.optimizer.step()
            image_QE, text_QE, _ = self.queue.features()
            assert self.queue.pointer == int(io["post.queue_ptr"])
            note("queues", deviation(image_QE.T, io["post.image_queue"]))
            note("queues", deviation(text_QE.T, io["post.text_queue"]))
            if (GOLDENS / f"pretrain_state_after{index}.safetensors").is_file():
                after = tensors(f"pretrain_state_after{index}")
                for name, weight in self.model.named_parameters():
                    note("weights", deviation(weight, after[name]))
                for name, weight in self.teacher.model.named_parameters():
                    note("momentum weights", deviation(weight, after[momentum_name(name)]))
        return found


def compared(output: PretrainOutput, io: dict[str, Tensor]) -> dict[str, float]:
    """Deviations of one step's losses and of what they were made of; token scores at the masked tokens only."""
    masked_BL = io["rand.mlm_labels"] != IGNORED
    losses = {
        "mcl": (io["out.loss_i2t"] + io["out.loss_t2i"]) / 2,
        "ucl": (io["out.loss_i2i"] + io["out.loss_t2t"]) / 4,
        "itm": io["out.loss_itm"],
        "mlm": io["out.loss_mlm"],
    }
    assert losses.keys() == output.terms.keys()
    found = {f"loss_{name}": deviation(output.terms[name], loss) for name, loss in losses.items()}
    found["loss_total"] = deviation(output.total, io["out.loss_total"])
    for name, mine in output.trace.items():
        theirs = io[f"out.{name}"]
        found[name] = deviation(mine, theirs[masked_BL] if "mlm_logits" in name else theirs)
    return found


class Finetuning:
    """Our answering model with the recorded weights, and one recorded step."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.facts, self.dtype = facts("vqa"), dtype
        self.model = self._load(VqaModel(model_config(self.facts), FinetuneConfig()), tensors("vqa_state0"), "")
        self.model.to(dtype)
        self.teacher = AnswerTeacher(self.model, self.facts["momentum"])
        self._load(self.teacher.model, tensors("vqa_state0"), "_m")

    @staticmethod
    def _load(model: VqaModel, state: dict[str, Tensor], suffix: str) -> VqaModel:
        own = {name: weight for name, weight in state.items() if name.split(".")[0].endswith("_m") == bool(suffix)}
        names = {ours(name.replace("_m.", ".", 1)): name for name in own if not name.endswith("position_ids")}
        model.load_state_dict({mine: state[theirs] for mine, theirs in names.items()})
        return model

    @cached_property
    def io(self) -> dict[str, Tensor]:
        """The recorded batch and what became of it."""
        return tensors("vqa_io0")

    def step(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of the recorded batch, the teacher moved first, and the deviations on the way."""
        io = self.io
        learned_BA = (io["in.answer_ids"] != 0).roll(-1, 1)
        learned_BA[:, -1] = False

        def run(part: VqaModel) -> tuple[Tensor, Tensor]:
            states = part.question_states(
                part.visual_encoder(io["in.image"]), io["in.question_ids"], io["in.question_mask"]
            )
            return states, part.answer_logits(states, io["in.question_mask"], io["in.answer_ids"], learned_BA)

        self.teacher.update()
        with torch.no_grad():
            states_m, logits_m = run(self.teacher.model)
        states, logits = run(self.model)
        target = io["in.answer_ids"][:, 1:][learned_BA[:, :-1]]
        loss = answer_loss(logits, target, logits_m, self.facts["alpha"], len(io["in.answer_ids"]))
        return loss, {
            "question_states": deviation(states, io["out.question_states"]),
            "question_states_m": deviation(states_m, io["out.question_states_m"]),
            "answer_logits": deviation(logits, io["out.answer_logits"][learned_BA]),
            "answer_logits_m": deviation(logits_m, io["out.answer_logits_m_shifted"][learned_BA[:, :-1]]),
            "loss": deviation(loss, io["out.loss"]),
        }

    def deviations(self) -> dict[str, float]:
        """The largest deviation of every quantity of the step, up to the weights that it leaves."""
        adamw = optimiser(self.facts, list(self.model.parameters()))
        loss, found = self.step()
        loss.backward()
        gradients = {ours(name): gradient for name, gradient in tensors("vqa_grads0").items()}
        mine = {name: weight.grad for name, weight in self.model.named_parameters()}
        assert mine.keys() == gradients.keys()
        found["gradients"] = max(deviation(mine[name], gradients[name]) for name in gradients)
        adamw.step()
        after = tensors("vqa_state_after0")
        for name, part, suffix in (("weights", self.model, ""), ("momentum weights", self.teacher.model, "_m")):
            expected = self._load(VqaModel(self.model.config, FinetuneConfig()), after, suffix).state_dict()
            found[name] = max(deviation(weight, expected[key]) for key, weight in part.state_dict().items())
        return found

    @torch.no_grad()
    def ranked(self, keep: int) -> tuple[Tensor, Tensor]:
        """The ids and probabilities of the paper's ranking, best first."""
        self.model.eval()
        io, mask = self.io, self.io["rank.question_mask"]
        candidates = Candidates.build(self.facts["rank_answers"], io["rank.answer_ids"], io["rank.answer_mask"])
        token = self.model.visual_encoder(io["rank.image"].to(self.dtype))
        states = self.model.question_states(token, io["rank.question_ids"], mask)
        best = self.model.rank(states, mask, candidates, "compat", keep=keep).topk(keep, dim=1)
        return best.indices, best.values
