"""What a site keeps on its disk between the messages of one run: every message may meet a fresh process."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from torch import Tensor

from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.data.files import write_atomically
from mumc_model.evaluate import AnswerRow

PRETRAINING = "pretrain-after-round-{:05d}.safetensors"
VQA_MODEL = "vqa"
ROWS = "answers-{}.jsonl"


class RunState:
    """The folder `state/runs/<run id>` of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, root: Path, run_id: str) -> Self:
        """What the site in the folder `root` keeps of a run."""
        return cls(root / "state" / "runs" / run_id)

    def private_weights(self, before_round: int) -> dict[str, Tensor] | None:
        """What training left behind in the round before, or None: in a first round, or after a missed one."""
        path = self.folder / PRETRAINING.format(before_round - 1)
        return load_weights(path) if path.is_file() else None

    def keep_private_weights(self, after_round: int, weights: Mapping[str, Tensor]) -> None:
        """Keep what the next round needs; the round before stays too, so that this round can be done again."""
        save_weights(self.folder / PRETRAINING.format(after_round), weights)
        kept = {PRETRAINING.format(number) for number in (after_round - 1, after_round)}
        for path in self.folder.glob(PRETRAINING.replace("{:05d}", "*")):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    @property
    def vqa_folder(self) -> Path:
        """Where the site's own answering model is kept, which never leaves it."""
        return self.folder / VQA_MODEL

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
