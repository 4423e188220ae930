"""A site's folder, encoders, and a server's side of the messages, as small as can be; `mumc-site` as it is typed."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from client.cli import main
from configs.compose import compose
from configs.loader import load
from mumc_model.config import ModelConfig, TextConfig, VisionConfig
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.tokenizer import vocabulary
from mumc_model.model import build_model
from protocol.codec import digest, pack, unpack
from protocol.messages import Order, Refusal, Report
from protocol.records import reply_from_record, to_record
from protocol.schema import WeightSchema
from server.config import RunConfig
from server.federation import first_weights
from server.orders import Orders, fit_vocabulary

Packed = dict[str, np.ndarray]

TINY = (
    # Most tests look at the update itself; those of the codec ask for another.
    "codec.kind=float32",
    "federation.rounds=2",
    "federation.local_steps=2",
    "model.vision={image_size: 32, patch_size: 16, width: 16, depth: 1, heads: 2, mlp_ratio: 2.0}",
    "model.text={width: 16, text_layers: 1, fusion_layers: 1, heads: 2, max_positions: 24}",
    "model.projection=8",
    "pretrain.batch_size=4",
    "finetune.steps=4",
    "finetune.select_every=2",
    "finetune.batch_size=8",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back from a site, and the bytes that it was."""

    message: Report | Refusal
    arrays: Packed
    sent: bytes


class Server:
    """Orders and first weights of one run, made by the code that makes them in a deployment."""

    def __init__(self) -> None:
        config = load(RunConfig, compose("run", TINY))
        tokens = tuple(vocabulary(config.vocabulary).vocab)
        self.recipe = fit_vocabulary(config.recipe, len(tokens))
        weights = first_weights(config, self.recipe)
        self.schema = WeightSchema.of(weights)
        self.base = pack(weights, self.schema)
        self._orders = Orders(config, "trial", self.recipe, tokens)

    def pretrain(self, round: int = 1, base: Packed | None = None) -> Order:
        return self._orders.pretrain(round, digest(base or self.base, self.schema))

    def rehearse(self, round: int = 1) -> Order:
        return dataclasses.replace(self._orders.rehearse(digest(self.base, self.schema)), round=round)

    def finetune(self) -> Order:
        return self._orders.finetune(digest(self.base, self.schema))

    def evaluate(self) -> Order:
        return self._orders.evaluate(digest(self.base, self.schema))

    def named(self, update: Packed) -> Packed:
        return unpack(update, self.schema)

    def ask(self, folder: Path, order: Order, base: Packed | None = None, message_type: str = "") -> Answer:
        """The answer of the installed ClientApp at the site in the folder."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        if base is None:
            base = {} if order.action == "evaluate.vqa" else self.base
        message = Message(to_record(order, base), 101, message_type or order.action)
        message.metadata.__dict__["_message_id"] = "message-1"
        node = {"site": str(folder), "trial": True}
        reply = app(message, Context(run_id=1, node_id=101, node_config=node, state=RecordDict(), run_config={}))
        answer, arrays = reply_from_record(reply.content)
        assert not isinstance(answer, Order)
        return Answer(message=answer, arrays=arrays, sent=message_to_proto(reply).SerializeToString())


@pytest.fixture(scope="session")
def server():
    return Server()


@pytest.fixture(scope="session")
def untouched(tmp_path_factory):
    """A site's folder that no order has reached."""
    counts = {"images": 6, "train_questions": 12, "val_questions": 10, "test_questions": 24, "closed_share": 0.5}
    config = PhantomConfig(hospitals=1, images_per_patient=1, image_size=32, **counts)
    (folder,) = write_hospitals(config, tmp_path_factory.mktemp("sites"), 0)
    return folder


@pytest.fixture
def hurried(monkeypatch):
    """Nobody waits for the disk, since no test here pulls the plug, nor long before looking for a reply again."""
    hurry(monkeypatch)


def hurry(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("server.exchange._POLL_S", (0.002, 0.01))


@pytest.fixture(scope="session")
def two_joined(untouched, tmp_path_factory):
    """A federation and its two sites, as they are before the first order."""
    from tests.client.joined import join_two

    place = tmp_path_factory.mktemp("two")
    join_two(place, untouched)
    return place


@pytest.fixture
def federation(two_joined, server, tmp_path, hurried):
    """A copy of them, for one test alone."""
    from tests.client.joined import Federation

    return Federation.open(Path(shutil.copytree(two_joined, tmp_path / "two")), server)


@pytest.fixture(scope="session")
def three_joined(untouched, tmp_path_factory):
    """A federation and its three sites for masked rounds, as they are before the first order."""
    from tests.client.masked import join_three

    place = tmp_path_factory.mktemp("three")
    join_three(place, untouched)
    return place


@pytest.fixture
def trio_folder(three_joined, tmp_path, hurried):
    """A copy of them, for one test alone."""
    return Path(shutil.copytree(three_joined, tmp_path / "three"))


@pytest.fixture
def folder(untouched, tmp_path):
    """A copy of that folder, for one test alone."""
    return Path(shutil.copytree(untouched, tmp_path / "site"))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """A folder of pre-trained encoders, as `mumc-server export` writes it; tests only read it."""
    tokenizer = vocabulary("phantom")
    config = ModelConfig(
        vision=VisionConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2),
        text=TextConfig(
            width=16, text_layers=1, fusion_layers=1, heads=2, vocab_size=len(tokenizer.vocab), max_positions=32
        ),
        projection=8,
    )
    folder = tmp_path_factory.mktemp("encoders") / "merged"
    build_model(config, 0).save_pretrained(
        folder, tokenizer=tokenizer, left_out=["text_encoder.cls."], facts={"run": "merged"}
    )
    return folder


@pytest.fixture
def called(typed):
    """Exit code, output and errors of `mumc-site` with these words."""
    return partial(typed, main, "mumc-site")


@pytest.fixture(scope="session")
def four_counting(untouched, tmp_path_factory):
    """A federation and its four sites, ready to have their counts summed."""
    from tests.client.counted import join_four

    place = tmp_path_factory.mktemp("four")
    join_four(place, untouched)
    return place


@pytest.fixture(scope="session")
def four_counted(four_counting, tmp_path_factory):
    """The same after the run `counts`, in which all of them were summed."""
    from tests.client.counted import Counted

    place = Path(shutil.copytree(four_counting, tmp_path_factory.mktemp("counted") / "four"))
    with pytest.MonkeyPatch.context() as patched:
        hurry(patched)
        draw_no_report(patched)
        assert Counted(place).error is None
    return place


@pytest.fixture
def counting_folder(four_counting, tmp_path, hurried, monkeypatch):
    """A copy of the four before any run, for one test alone, whose runs draw no report."""
    draw_no_report(monkeypatch)
    return Path(shutil.copytree(four_counting, tmp_path / "four"))


@pytest.fixture
def counted_folder(four_counted, tmp_path, hurried, monkeypatch):
    """The same after the run `counts`."""
    draw_no_report(monkeypatch)
    return Path(shutil.copytree(four_counted, tmp_path / "four"))


def draw_no_report(monkeypatch):
    monkeypatch.setattr("server.statistics_run.write_reports", lambda folder, enrolled: None)
    monkeypatch.setattr("server.statistics_run.installed_digest", lambda: "c" * 64)
