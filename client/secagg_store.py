"""What a site keeps on its disk of secure aggregation in one run: state, masked vector, and the update behind it.

Every write is on the disk before it returns, and whole or not at all. What a file held before is overwritten.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from protocol.errors import SigningError
from protocol.keyfiles import erase, read_secret, write_secret
from protocol.lock import exclusive
from protocol.messages import Report
from protocol.secagg import state as states
from protocol.secagg.errors import StageError
from protocol.secagg.masks import vector_digest
from protocol.secagg.state import State
from protocol.statistics import DIGEST as STATISTICS_DIGEST

STATE, VECTOR, UPDATE, LOCK = "secagg.json", "secagg-vector.safetensors", "secagg-update.safetensors", "stage.lock"
MAX_STATE_BYTES = 1 << 24
"""Room for 256 sites."""

Array = np.ndarray[Any, Any]
Metrics = dict[str, float]


class SecaggStore:
    """The files of one run's session in `state/runs/<run id>` of a site."""

    def __init__(self, folder: Path) -> None:
        self._state, self._vector, self._update = (folder / name for name in (STATE, VECTOR, UPDATE))

    @classmethod
    def of(cls, root: Path, run_id: str) -> Self:
        """What the site in the folder `root` keeps of a run."""
        return cls(root / "state" / "runs" / run_id)

    def before(self) -> State | None:
        """The state of the last stage, erased or not; None where the run has had no session here.

        Raises:
            StageError: it is damaged, or others than its owner can read it.
        """
        return self._read()["state"] if self._state.exists() else None

    def state(self) -> State:
        """The state of the last stage.

        Raises:
            StageError: there is none, or it cannot be used.
        """
        before = self.before()
        if before is None:
            raise StageError("this site has advertised no keys for this run, so it can do no later stage of it")
        return before

    def metrics(self) -> Metrics:
        """What the report of the masked update says, for one that is sent again."""
        return dict(self._read()["metrics"])

    def keep(self, state: State, after: State | None, metrics: Mapping[str, float] | None = None) -> None:
        """Put a state in the place of the one that it came from; only then may its reply be sent.

        Raises:
            StageError: another order has been answered in the meantime, so that this one comes too late.
        """
        with self._alone():
            if self.before() != after:
                raise StageError("this site has answered another order in the meantime, and this one comes too late")
            self._put(state, self._read()["metrics"] if metrics is None and after is not None else metrics or {})

    def vector(self, digest: str) -> Array:
        """The masked words that were kept under this digest.

        Raises:
            StageError: they are gone, or others; they are never made anew under the same keys.
        """
        words = self._load(self._vector).get("words")
        if words is None or vector_digest(words) != digest:
            raise StageError("the masked vector that this site has answered with is gone; it drops out of the round")
        return words

    def keep_vector(self, words: Array) -> None:
        """Keep the masked words; the state that speaks of them is kept after it."""
        self._write(self._vector, save({"words": words}))

    def update(
        self, train: Callable[[], tuple[Report, dict[str, Array]]], key: str
    ) -> tuple[Metrics, dict[str, Array]]:
        """The metrics and the update that `train` gives, kept under the key, so that it is called once for a key."""
        kept = self._load(self._update)
        told = bytes(kept.pop("told", np.empty(0, np.uint8))).decode()
        known = json.loads(told) if told else {}
        if known.get("key") == key:
            return known["metrics"], kept
        report, update = train()
        said = json.dumps({"key": key, "metrics": dict(report.metrics)}).encode()
        self._write(self._update, save({**update, "told": np.frombuffer(said, np.uint8)}))
        return dict(report.metrics), update

    def forget_arrays(self) -> None:
        """Erase vector and update: the round is over for this site."""
        erase(self._vector)
        erase(self._update)

    def end(self) -> None:
        """Erase everything but which session it was and whether shares were revealed."""
        if not self._state.exists():
            return
        with self._alone():
            before = self.before()
            if before is not None and before["stage"] != states.ENDED:
                self._put(states.erase(before), {})
            self.forget_arrays()

    @property
    def counts(self) -> bool:
        """Whether the session that lies here sums counts; one that has ended is of no kind.

        Raises:
            StageError: its state cannot be read.
        """
        session = (self.before() or {}).get("session", {})
        return bool(session.get("base_digest") == STATISTICS_DIGEST)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time; the text of the error goes to the server, and names no path."""
        self._state.parent.mkdir(parents=True, exist_ok=True)
        busy = "another process holds this site's state of secure aggregation; its engineer must look into it"
        with exclusive(self._state.with_name(LOCK), lambda text: StageError(busy)):
            yield

    def _put(self, state: State, metrics: Mapping[str, float]) -> None:
        content = json.dumps({"state": state, "metrics": dict(metrics)}, sort_keys=True, allow_nan=False).encode()
        self._write(self._state, content)

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(read_secret(self._state, MAX_STATE_BYTES))
            return {"state": dict(values["state"]), "metrics": dict(values["metrics"])}
        except (SigningError, ValueError, KeyError, TypeError) as error:
            raise StageError(
                "this site's state of secure aggregation cannot be read, so it takes no part in this run; its engineer "
                "must look into it"
            ) from error

    def _load(self, path: Path) -> dict[str, Array]:
        try:
            return dict(load(path.read_bytes())) if path.is_file() else {}
        except SafetensorError:
            return {}

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        old = os.open(path, os.O_RDWR) if path.is_file() else None
        write_secret(path, content, replace=True)
        if old is not None:
            # The name leads to the new file already; this one has none left.
            with os.fdopen(old, "r+b") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
                file.flush()
                os.fsync(file.fileno())


def end_other_runs(root: Path, run_id: str, *, counting: bool = False) -> None:
    """Erase what sessions of other runs have left at the site: one that begins ends those of its kind.

    `counting` says of which kind: sessions that sum counts, or those of training. Each goes on beside the other.
    """
    for path in sorted((root / "state" / "runs").glob(f"*/{STATE}")):
        store = SecaggStore(path.parent)
        if path.parent.name != run_id and store.counts == counting:
            store.end()
