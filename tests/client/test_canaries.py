"""Nothing of a site's data, names or paths leaves it: unmistakable words are planted everywhere and searched for.

What is searched is every byte of every reply as it is handed to the transport (before TLS), the whole folder of the
server, the results, and what either side prints.
"""

import base64
import getpass
import hashlib
import json
import logging
import platform
import shutil
import socket

import matplotlib.font_manager  # noqa: F401 - it looks for its user's folders, and tells its log, when first imported
import pytest
import torch
from flwr.common.serde import message_to_proto, recorddict_to_proto

import client.pretrain
from client.log import site_log_file
from client.privacy.errors import LedgerError
from configs.loader import ConfigurationError
from mumc_model.errors import CheckpointError, ConfigError, DataError, DeviceError
from protocol.errors import ChainError, LogError, StaleError
from protocol.records import reply_from_record
from server.federation import run
from server.home import Home
from server.journal import read_journal
from server.seal import Post
from simulations.engine import InProcess
from simulations.grid import LocalGrid
from tests.client import masked
from tests.client.joined import NODES, Federation, join_two
from tests.client.masked import join_three
from tests.client.privacy.private_rounds import PrivateServer, approve

FOLDER, IMAGE, PATIENT = "kanarifolder", "kanariimage", "kanaripatient"
QUESTION, ANSWER, CAPTION, KIND = "kanariquestion", "kanarianswer", "kanaricaption", "kanarikind"
HOST, USER, FAULT = "kanarihost", "kanariuser", "kanarifault"
CANARIES = (FOLDER, IMAGE, PATIENT, QUESTION, ANSWER, CAPTION, KIND, HOST, USER, FAULT)


def sightings(content: bytes) -> set[str]:
    """The planted words in these bytes: plain, in other spellings, or as a digest that anyone could look up."""
    lower = content.lower()
    found = set()
    for word in CANARIES:
        plain = word.encode()
        shifted = (base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4] for shift in range(3))
        spellings = [plain, plain.hex().encode(), word.encode("utf-16-le"), plain[::-1]]
        digests = [h(plain).hexdigest().encode() for h in (hashlib.md5, hashlib.sha1, hashlib.sha256)]
        if any(s in lower for s in spellings + digests) or any(s in content for s in shifted):
            found.add(word)
    return found


def plant(folder):
    """Put the words into a site's records, file names and images."""
    for path in (folder / "images").iterdir():
        path.rename(path.with_name(f"{IMAGE}-{path.name}"))
    for name in ("captions.jsonl", "vqa.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for row in rows:
            row["image"] = row["image"].replace("images/", f"images/{IMAGE}-")
            row["patient_id"] = f"{PATIENT}-{row['patient_id']}"
            if "caption" in row:
                row["caption"] += f" {CAPTION}"
            else:
                row["question"] += f" {QUESTION}"
                row["question_type"] = KIND
                row["answer"] += f" {ANSWER}" if row["answer_type"] == "OPEN" else ""
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


class Tapped(LocalGrid):
    """A grid that keeps the bytes of every reply."""

    def __init__(self, sites, engine):
        super().__init__(sites, engine)
        self.sent = []

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        self.sent += [message_to_proto(reply).SerializeToString() for reply in replies]
        return replies


def name_machine(patch):
    """Give the machine the words for names."""
    patch.setattr(socket, "gethostname", lambda: HOST)
    patch.setattr(platform, "node", lambda: HOST)
    patch.setattr(getpass, "getuser", lambda: USER)
    for name, value in {"HOSTNAME": HOST, "USER": USER, "LOGNAME": USER, "HOME": f"/home/{USER}"}.items():
        patch.setenv(name, value)


@pytest.fixture(scope="module")
def planted(tmp_path_factory, untouched):
    """Two federations, `two` and `three`, of sites with the words in their data that joined from such a machine."""
    place = tmp_path_factory.mktemp("planted")
    plant(shutil.copytree(untouched, place / "data"))
    with pytest.MonkeyPatch.context() as patch:
        name_machine(patch)
        join_two(place / "two", place / "data")
        join_three(place / "three", place / "data")
    return place


@pytest.fixture
def machine(monkeypatch, hurried):
    name_machine(monkeypatch)


def copied(place, target):
    """The server's folder in a copy, and those of the sites under a path with a word in it."""
    shutil.copytree(place, target / "place")
    (target / FOLDER).mkdir()
    sites = [path for path in (target / "place").iterdir() if path.name != "hub"]
    return Home.open(target / "place" / "hub"), {root.name: root.rename(target / FOLDER / root.name) for root in sites}


@pytest.fixture
def federation(planted, tmp_path, machine, server):
    return Federation(*copied(planted / "two", tmp_path), server)


def check_nothing_left(home, sent, *elsewhere):
    """Fail where a planted word is in the bytes, in the server's folder or in these files and texts."""
    assert sightings(b"\0".join(sent)) == set()
    for place in (home.root, *(e for e in elsewhere if not isinstance(e, str))):
        for path in place.rglob("*"):
            content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
            assert (path.name, sightings(content)) == (path.name, set())
    for text in elsewhere:
        assert not isinstance(text, str) or sightings(text.encode()) == set()


@pytest.mark.parametrize("spelling", ["plain", "upper", "base64", "hex", "sha256", "utf-16"])
def test_a_planted_word_is_seen_however_it_is_written(spelling):
    word = PATIENT.encode()
    written = {
        "plain": word,
        "upper": word.upper(),
        "base64": base64.b64encode(b"id: " + word + b"-1"),
        "hex": word.hex().encode(),
        "sha256": hashlib.sha256(word).hexdigest().encode(),
        "utf-16": PATIENT.encode("utf-16-le"),
    }[spelling]
    assert sightings(b"before " + written + b" after") == {PATIENT}


def test_a_whole_run_with_a_site_that_fails_gives_nothing_away(federation, tmp_path, monkeypatch, capfd, caplog):
    grids = []

    def grid(sites, engine):
        grids.append(Tapped(sites, engine))
        return grids[-1]

    honest = client.pretrain.pretrain_site

    def fails(order, base, site, **settings):
        if order.round == 2 and site.config.name == "south":
            raise RuntimeError(f"{FAULT} at {site.root}: {site.data.captions[0]}")
        return honest(order, base, site, **settings)

    monkeypatch.setattr(client.pretrain, "pretrain_site", fails)
    caplog.set_level(logging.DEBUG)
    result = federation.play(
        tmp_path / "run", "federation.sites=2", "federation.min_sites=1", "federation.final=finetune", grid=grid
    )
    for record in read_journal(result.journal):
        print(record)
    first, second = read_journal(result.journal)
    assert (first.refused, second.refused) == ({}, {"south": "internal"})
    assert second.reasons == {"south": '"an unexpected fault; see the site\'s log"'}
    assert set(result.vqa) == set(NODES)
    (sent,) = [grid.sent for grid in grids]
    assert len(sent) == 6
    assert sightings((federation.sites["south"] / "state" / "site.log").read_bytes()) >= {FAULT, FOLDER, PATIENT}
    out, err = capfd.readouterr()
    assert 'lost south (internal: "an unexpected fault' in out
    logs = [(root / "state" / "log.jsonl").read_text() for root in federation.sites.values()]
    check_nothing_left(federation.home, sent, tmp_path / "run", out, err, caplog.text, *logs)


def test_a_run_under_masks_gives_nothing_away(planted, tmp_path, machine, monkeypatch, capfd):
    home, sites = copied(planted / "three", tmp_path)
    honest = client.pretrain.pretrain_site

    def fails(order, base, site, **settings):
        if order.round == 2 and site.config.name == "cedar":
            raise DataError(f"{FAULT} at {site.root}: {site.data.captions[0]}")
        return honest(order, base, site, **settings)

    monkeypatch.setattr(client.pretrain, "pretrain_site", fails)
    engine = InProcess(1)
    grid = Tapped({node: sites[name] for name, node in masked.NODES.items()}, engine)
    try:
        result = run(grid, masked.config(f"output_dir={tmp_path / 'run'}", "federation.final=none"), post=Post(home))
    finally:
        engine.close()
    first, second = read_journal(result.journal)
    assert (first.refused, second.refused) == ({}, {"cedar": "data"})
    assert len(grid.sent) > 20
    logs = [(root / "state" / "log.jsonl").read_text() for root in sites.values()]
    check_nothing_left(home, grid.sent, tmp_path / "run", *logs, *capfd.readouterr())


@pytest.mark.parametrize("cap", [0.5, 6.0])
def test_a_private_round_gives_away_what_was_spent_and_nothing_of_the_officer(federation, capfd, cap):
    private, root = PrivateServer(), federation.sites["north"]
    approve(root, epsilon=cap, officer=PATIENT, reason=FAULT)
    federation.run = private
    reply = federation.exchange(private.pretrain())
    answer, _ = reply_from_record(reply)
    line = site_log_file(root).entries()[-1]
    if cap < 1:
        assert (line["answer"], answer.code) == ("refusal", "privacy_budget")
    else:
        assert (line["answer"], line["metrics"], line["examples"]) == ("report", {}, 1000)
        assert line["epsilon_spent"] == answer.metrics["epsilon_spent"] > 0
    assert sightings((root / "site.yaml").read_bytes()) >= {PATIENT, FAULT}
    check_nothing_left(federation.home, [bytes_of(reply)], *capfd.readouterr())


def many(text):
    return ExceptionGroup(text, [ValueError(text), OSError(2, text, text)])


RAISED = {
    "BaseExceptionGroup": many,
    "CheckpointError": CheckpointError,
    "ChainError": ChainError,
    "ConfigError": ConfigError,
    "ConfigurationError": ConfigurationError,
    "DataError": DataError,
    "DeviceError": DeviceError,
    "KeyError": KeyError,
    "LedgerError": LedgerError,
    "LogError": LogError,
    "MemoryError": MemoryError,
    "OSError": lambda text: OSError(2, text, text),
    "OutOfMemoryError": torch.OutOfMemoryError,
    "RuntimeError": RuntimeError,
    "StaleError": StaleError,
    "UnicodeDecodeError": lambda text: UnicodeDecodeError("utf-8", text.encode(), 0, 1, text),
}


@pytest.mark.parametrize("kind", sorted(RAISED))
def test_the_text_of_an_exception_stays(federation, monkeypatch, capfd, kind):
    def fail(order, base, site, **settings):
        error = RAISED[kind](f"{FAULT} in {site.root}")
        error.add_note(f"about {site.data.captions[0].patient_id}")
        raise error from ValueError(site.data.captions[0].caption)

    monkeypatch.setattr(client.pretrain, "pretrain_site", fail)
    reply = federation.exchange(federation.run.pretrain())
    written = (federation.sites["north"] / "state" / "site.log").read_bytes()
    assert sightings(written) >= {FAULT, FOLDER, PATIENT, CAPTION}
    check_nothing_left(federation.home, [bytes_of(reply)], *capfd.readouterr())


def unknown_key(root):
    with (root / "site.yaml").open("a") as file:
        file.write(f"{FAULT}: {PATIENT}\n")


def fill(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


SPOILED = {
    "a file in the state's place": (lambda root: fill(root / "state" / "runs", FAULT), "disk"),
    "a log that was edited": (lambda root: fill(root / "state" / "log.jsonl", f'{{"{FAULT}": 1}}\n'), "bad_chain"),
    "an unknown key in site.yaml": (unknown_key, "configuration"),
    "images that are none": (
        lambda root: [path.write_text(f"{FAULT} {PATIENT}") for path in (root / "images").iterdir()],
        "data",
    ),
    "no image": (lambda root: shutil.rmtree(root / "images"), "data"),
    "records that are none": (lambda root: fill(root / "captions.jsonl", f"{FAULT} {PATIENT}\n" * 9), "data"),
}


@pytest.mark.parametrize("how", sorted(SPOILED))
@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_what_is_wrong_with_a_site_is_told_to_nobody_else(federation, capfd, how, stage):
    spoil, code = SPOILED[how]
    order = getattr(federation.run, stage)()
    spoil(federation.sites["north"])
    reply = federation.exchange(order)
    answer, arrays = reply_from_record(reply)
    assert (answer.code, arrays) == (code, {})
    check_nothing_left(federation.home, [bytes_of(reply)], *capfd.readouterr())


def bytes_of(record):
    """A reply's content as it is handed to the transport."""
    return recorddict_to_proto(record).SerializeToString()
