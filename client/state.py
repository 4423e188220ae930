"""What a site keeps on its disk between the messages of one run: every message may meet a fresh process."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.data.files import write_atomically
from mumc_model.evaluate import AnswerRow
from protocol.messages import Order, to_json

PRETRAINING = "pretrain-after-round-{:05d}.safetensors"
CHARGED = "charged-after-round-{:05d}.safetensors"
"""The same where all of it came from training under differential privacy."""
SENT = "update-of-round-{:05d}-{:03d}-{}.safetensors"
UNCHARGED = "uncharged.jsonl"
"""In `state/`: runs and weights that training without differential privacy has touched here."""
VQA_MODEL, PRIVATE_VQA_MODEL = "vqa", "vqa-private"
RELEASED = "released-metrics-{:05d}-{:03d}-{}.json"
ROWS = "answers-{}.jsonl"


class RunState:
    """The folder `state/runs/<run id>` of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, root: Path, run_id: str) -> Self:
        """What the site in the folder `root` keeps of a run."""
        return cls(root / "state" / "runs" / run_id)

    def private_weights(self, before_round: int, *, charged: bool = False) -> dict[str, Tensor] | None:
        """What training left behind in the round before, or None: in a first round, or after a missed one."""
        path = self.folder / (CHARGED if charged else PRETRAINING).format(before_round - 1)
        return load_weights(path) if path.is_file() else None

    def keep_private_weights(self, after_round: int, weights: Mapping[str, Tensor], *, charged: bool = False) -> None:
        """Keep what the next round needs; the round before stays too, so that this round can be done again.

        `charged` keeps weights that differential privacy covers apart from others.
        """
        form = CHARGED if charged else PRETRAINING
        save_weights(self.folder / form.format(after_round), weights)
        kept = {form.format(number) for number in (after_round - 1, after_round)}
        for path in self.folder.glob(form.replace("{:05d}", "*")):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def sent_update(self, order: Order) -> dict[str, np.ndarray[Any, Any]] | None:
        """The packed update that this very order was answered with before, or None."""
        path = self._sent(order)
        return {name: flat.numpy() for name, flat in load_weights(path).items()} if path.is_file() else None

    def keep_sent_update(self, order: Order, update: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep what answers an order before it leaves; updates of earlier rounds are forgotten."""
        save_weights(self._sent(order), {name: torch.from_numpy(flat) for name, flat in update.items()})
        for path in self.folder.glob("update-of-round-*"):
            if path.name < SENT.format(order.round, 0, ""):
                path.unlink(missing_ok=True)

    def _sent(self, order: Order) -> Path:
        name = hashlib.sha256(to_json(order).encode()).hexdigest()[:16]
        return self.folder / SENT.format(order.round, order.attempt, name)

    def note_uncharged(self, order: Order) -> None:
        """Remember, before it happens, that this order's run trains here without differential privacy.

        The weights it begins with are remembered too, unless it is the first round: then no patient is in them yet.
        """
        base = order.base_digest if order.round > 1 else ""
        path, line = self.folder.parents[1] / UNCHARGED, json.dumps({"run": order.run_id, "base": base})
        known = path.read_bytes() if path.is_file() else b""
        if line.encode() not in known.splitlines():
            write_atomically(path, known + line.encode() + b"\n")

    def is_uncharged(self, order: Order) -> bool:
        """Whether its run, or one that had these weights, has trained here without differential privacy."""
        return trained_uncharged(self.folder.parents[2], order.run_id, order.base_digest)

    def released(self, order: Order, model: str = "") -> dict[str, float] | None:
        """The charged metrics that this very order was answered with before, for that model, or None."""
        path = self._released(order, model)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def keep_released(self, order: Order, metrics: Mapping[str, float], model: str = "") -> None:
        """Keep the metrics that answer an order before they leave. `model` is the digest of what was evaluated."""
        write_atomically(self._released(order, model), json.dumps(dict(metrics)).encode())

    def _released(self, order: Order, model: str) -> Path:
        name = hashlib.sha256(f"{to_json(order)}{model}".encode()).hexdigest()[:16]
        return self.folder / RELEASED.format(order.round, order.attempt, name)

    @property
    def vqa_folder(self) -> Path:
        """Where the site's own answering model is kept, which never leaves it."""
        return self.folder / VQA_MODEL

    @property
    def private_vqa_folder(self) -> Path:
        """Where the answering model of private fine-tuning is kept: nothing uncharged is ever written there."""
        return self.folder / PRIVATE_VQA_MODEL

    def keep_rows(self, split: str, rows: Iterable[AnswerRow]) -> None:
        """Keep every answered question of a split, for the site's own eyes."""
        lines = [json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows]
        write_atomically(self.folder / ROWS.format(split), "".join(lines).encode())

    def rows(self, split: str) -> list[AnswerRow]:
        """The answered questions of a split, empty where none were kept."""
        path = self.folder / ROWS.format(split)
        if not path.is_file():
            return []
        return [AnswerRow.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def trained_uncharged(root: Path, run_id: str, base_digest: str) -> bool:
    """Whether this run, or one that had these weights, has trained at the site without differential privacy."""
    path = root / "state" / UNCHARGED
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    return any(row["run"] == run_id or row["base"] == base_digest for row in rows)
