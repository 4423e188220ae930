"""The page of a run with faults: four synthetic hospitals, real clients, and what goes wrong in which round.

    python benchmarks/run_page.py FOLDER            # FOLDER/report.html
    python benchmarks/run_page.py FOLDER --json     # and who was lost, as a line of JSON

docs/figures/run-page.png is that page in a browser, as `chromium --headless --screenshot` takes it.
"""

import argparse
import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from configs.compose import compose
from configs.loader import load
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from protocol.records import order_from_record, reply_from_record, to_record
from server import federation
from server.config import RunConfig
from server.history import History, headline
from server.report_page import write_reports
from simulations.engine import InProcess
from simulations.grid import LocalGrid

OVERRIDES = (
    "federation.rounds=14",
    "federation.local_steps=4",
    "federation.sites=4",
    "federation.min_sites=2",
    "federation.wait_s=5",
    "federation.rejoin_s=0",
    "finetune.steps=20",
    "finetune.select_every=10",
    "pretrain.batch_size=8",
    "codec.kind=float32",
    "run_id=faulty-14",
)
FIRST = 11
LOST = {(11, 4), (11, 5), (11, 6), (13, 10), (14, 11)}
"""Node and round in which the connection to a site is lost."""
LONG, NAN = {(13, 8)}, {(12, 9), (12, 12)}
"""Where an update is twenty times as long as it was, or not a number."""
VOID = 7
"""In the first attempt at this round three sites are lost, so that too few are left."""


class Faulty:
    """An engine whose clients fail as planned."""

    def __init__(self) -> None:
        self._engine = InProcess(threads=2)

    def submit(self, message: Message, context: Context) -> "Future[Message]":
        """The reply to come, or what is left of it."""
        order, _ = order_from_record(message.content)
        place = (context.node_id, order.round)
        pretrains = order.action == "train.pretrain"
        cut_off = (order.round, order.attempt) == (VOID, 1) and place[0] != FIRST
        if pretrains and (cut_off or place in LOST):
            return _done(Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=message))
        reply = self._engine.submit(message, context)
        factor = 20.0 if place in LONG else np.nan if place in NAN else None
        return _scaled(message, reply.result(), factor) if pretrains and factor is not None else reply

    def close(self) -> None:
        """End the clients."""
        self._engine.close()

    def abandon(self) -> None:
        """End them at once."""
        self._engine.abandon()


def _scaled(message: Message, reply: Message, factor: float) -> "Future[Message]":
    report, arrays = reply_from_record(reply.content)
    content = to_record(report, {name: (flat * factor).astype(flat.dtype) for name, flat in arrays.items()})
    return _done(Message(content, reply_to=message))


def _done(reply: Message) -> "Future[Message]":
    done: Future[Message] = Future()
    done.set_result(reply)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where hospitals and the run go; what is there is removed")
    parser.add_argument("--json", action="store_true", help="print who was lost as JSON")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    images = PhantomConfig(hospitals=4, images=24, train_questions=24, val_questions=12, test_questions=24)
    sites = dict(enumerate(write_hospitals(images, given.folder / "hospitals", 0), FIRST))
    run = given.folder / "run"
    config = load(RunConfig, compose("run", [*OVERRIDES, f"output_dir={run}"]))
    engine = Faulty()
    try:
        federation.run(LocalGrid(sites, engine), config, on_round=print)
    finally:
        engine.close()
    page, history = write_reports(run), History.read(run)
    if given.json:
        print(json.dumps({"page": str(page), "lost": {site: len(missed) for site, missed in history.lost.items()}}))
    else:
        print("\n".join([*headline(history), str(page)]))


if __name__ == "__main__":
    main()
