"""What a site keeps on its disk between the messages of one run: every message may meet a fresh process."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from client.site import folder_log
from mumc_model.checkpoint import load_weights
from mumc_model.data.files import write_atomically
from mumc_model.errors import CheckpointError
from mumc_model.evaluate import AnswerRow
from mumc_model.normalise import NORMALISER
from mumc_model.tensorfile import check_data, map_tensors, write_tensors
from protocol.messages import Order, to_json

PRETRAINING = "pretrain-after-round-{:05d}.safetensors"
CHARGED = "charged-after-round-{:05d}.safetensors"
"""The same where all of it came from training under differential privacy."""
RESIDUAL = "residual-after-round-{:05d}.safetensors"
"""What the codec took from the updates until this round, which the next update gives back."""
CHARGED_RESIDUAL = "charged-residual-after-round-{:05d}.safetensors"
SENT = "update-of-round-{:05d}-{}.safetensors"
UNCHARGED = "uncharged.jsonl"
"""In `state/`: runs and weights that training without differential privacy has touched here."""
VQA_MODEL, PRIVATE_VQA_MODEL = "vqa", "vqa-private"
RELEASED = "released-metrics-{:05d}-{:03d}-{}.json"
ROWS = "answers-{}.jsonl"
ROWS_SCORED = "answers-{}.json"
"""How those answers were compared with the truth."""


Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What answered an order: the arrays exactly as they left, and what the report said of the training."""

    arrays: Arrays
    metrics: Mapping[str, float] = field(default_factory=dict)


class RunState:
    """The folder `state/runs/<run id>` of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, root: Path, run_id: str) -> Self:
        """What the site in the folder `root` keeps of a run."""
        return cls(root / "state" / "runs" / run_id)

    def private_weights(self, before_round: int, *, charged: bool = False) -> dict[str, Tensor] | None:
        """What training left behind in the round before, or None: in a first round, or after a missed one.

        A file that a loss of power cut off counts as missed too, and the site's log says so.
        """
        path = self.folder / (CHARGED if charged else PRETRAINING).format(before_round - 1)
        try:
            return _checked(path) if path.is_file() else None
        except CheckpointError:
            self._warn("%s is cut off; round %d begins here as after one that was missed", path.name, before_round)
            return None

    def keep_private_weights(self, after_round: int, weights: Mapping[str, Tensor], *, charged: bool = False) -> None:
        """Keep what the next round needs; the round before stays too, so that this round can be done again.

        `charged` keeps weights that differential privacy covers apart from others. The disk is not waited for.
        """
        form = CHARGED if charged else PRETRAINING
        arrays = {name: weight.detach().cpu().numpy() for name, weight in weights.items()}
        write_tensors(self.folder / form.format(after_round), arrays, {}, durable=False)
        self._forget(form, {form.format(number) for number in (after_round - 1, after_round)})

    def residual(self, before_round: int, *, charged: bool = False) -> Arrays | None:
        """What the codec took from this site's updates before a round, or None where it took nothing.

        That of the newest earlier round, however long ago: what was not delivered then is still owed, and a round that
        is done again finds what it found the first time. Where the reply of a round was lost, its update is lost, and
        what the codec had left of it is delivered all the same. What a loss of power cut off is owed no more, and the
        site's log says so.
        """
        earlier = self._earlier(CHARGED_RESIDUAL if charged else RESIDUAL, before_round)
        try:
            if not earlier:
                return None
            _check(earlier[-1])
            return _read_arrays(earlier[-1])[0]
        except CheckpointError:
            self._warn("%s is cut off; what the codec took from earlier updates is lost", earlier[-1].name)
            return None

    def keep_residual(self, after_round: int, residual: Arrays, *, charged: bool = False) -> None:
        """Keep what is owed after a round, and the one before it, from which this round would be done again.

        The disk is not waited for.
        """
        form = CHARGED_RESIDUAL if charged else RESIDUAL
        write_tensors(self.folder / form.format(after_round), residual, {}, durable=False)
        before = {path.name for path in self._earlier(form, after_round)[-1:]}
        self._forget(form, before | {form.format(after_round)})

    def sent_update(self, order: Order, of: str = "") -> Sent | None:
        """What this round was answered with before, at whatever attempt; None where there is no such thing.

        `of` names the records that it was trained on; what came of others does not count.
        """
        path = self._sent(order, of)
        if not path.is_file():
            return None
        arrays, metrics = _read_arrays(path)
        return Sent(arrays=arrays, metrics=metrics)

    def keep_sent_update(self, order: Order, sent: Sent, of: str = "") -> None:
        """Keep what answers an order before it leaves; updates of earlier rounds, and what a crash cut off, go."""
        write_tensors(self._sent(order, of), sent.arrays, {"metrics": json.dumps(dict(sent.metrics))})
        for path in self.folder.glob("update-of-round-*"):
            if path.name < SENT.format(order.round, ""):
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.partial"):
            path.unlink(missing_ok=True)

    def _sent(self, order: Order, of: str) -> Path:
        name = hashlib.sha256(f"{to_json(order.of_round)}{of}".encode()).hexdigest()[:16]
        return self.folder / SENT.format(order.round, name)

    def _earlier(self, form: str, before_round: int) -> list[Path]:
        """The files of this form that rounds before this one left, the newest last."""
        found = sorted(self.folder.glob(form.replace("{:05d}", "?????")))
        return [path for path in found if path.name < form.format(before_round)]

    def _warn(self, text: str, *values: object) -> None:
        folder_log(self.folder.parents[2]).warning(text, *values)

    def _forget(self, form: str, kept: set[str]) -> None:
        for path in self.folder.glob(form.replace("{:05d}", "*")):
            if path.name not in kept:
                path.unlink(missing_ok=True)

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

    def keep_rows(self, split: str, rows: Iterable[AnswerRow], normaliser: str = NORMALISER) -> None:
        """Keep every answered question of a split, for the site's own eyes, and how it was compared with the truth."""
        lines = [json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows]
        scored = {"asked": split, "normaliser": normaliser}
        write_atomically(self.folder / ROWS_SCORED.format(split), json.dumps(scored).encode())
        write_atomically(self.folder / ROWS.format(split), "".join(lines).encode())

    def rows(self, split: str) -> list[AnswerRow]:
        """The answered questions of a split, empty where none were kept."""
        path = self.folder / ROWS.format(split)
        if not path.is_file():
            return []
        return [AnswerRow.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _checked(path: Path) -> dict[str, Tensor]:
    _check(path)
    return load_weights(path)


def _check(path: Path) -> None:
    """Return only if a file for which nobody waited for the disk holds what was written.

    Raises:
        CheckpointError: it does not.
    """
    try:
        check_data(path)
    except ValueError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}); it counts as missed") from error


def _read_arrays(path: Path) -> tuple[Arrays, dict[str, float]]:
    """The arrays of a file, mapped, and the metrics beside them.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        arrays, facts = map_tensors(path)
        return arrays, json.loads(facts.get("metrics", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}); delete it, and the round is trained anew") from error


def trained_uncharged(root: Path, run_id: str, base_digest: str) -> bool:
    """Whether this run, or one that had these weights, has trained at the site without differential privacy."""
    path = root / "state" / UNCHARGED
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    return any(row["run"] == run_id or row["base"] == base_digest for row in rows)
