"""What a hostile server, or another user of the hospital's machine, might try beside the rules of the protocol."""

import os
import stat

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.site import site_log
from client.task import answer
from protocol.messages import Refusal
from protocol.records import reply_from_record


@pytest.fixture
def umask():
    """Put back what a command of `mumc-site` sets for its process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def context(root):
    return Context(run_id=1, node_id=1, node_config={"site": str(root)}, state=RecordDict(), run_config={})


@pytest.mark.parametrize("kind", ["query.shell", "train", "train.run_this"])
def test_an_order_of_a_kind_that_nobody_knows_is_refused_with_a_code_and_noted(folder, kind):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(RecordDict(), 101, "train.pretrain")
    message.metadata.__dict__["_message_id"] = "message-1"
    message.metadata.__dict__["_message_type"] = kind
    came = context("/elsewhere")
    reply = answer(message, came, b"", str(folder), "0" * 64)
    assert reply_from_record(reply.content) == (
        Refusal(code="bad_message", text="the order cannot be followed; see the site's log"),
        {},
    )
    assert came.node_config == {"site": "/elsewhere"}
    (line,) = (folder / "state" / "site.log").read_text().splitlines()
    assert line.endswith(f"ERROR an order of the unknown kind {kind!r} was turned away")


def test_what_a_server_sent_begins_no_line_of_the_site_s_log_and_commands_no_terminal(folder):
    log = site_log(context(folder))
    said = "a key \x1b[2J\r\n2026-11-25 03:00:00,000 INFO masked an update of 12 numbers"
    try:
        raise ValueError(said)
    except ValueError as error:
        log.error("%s failed", "train.pretrain", exc_info=error)
    for handler in log.handlers:
        handler.flush()
    text = (folder / "state" / "site.log").read_text()
    first, *others = text.splitlines()
    assert first.endswith("ERROR train.pretrain failed")
    assert any("masked an update of 12 numbers" in line for line in others)
    assert all(line.startswith("    ") for line in others)
    assert all(character.isprintable() or character == "\n" for character in text)


def test_what_a_command_of_the_site_writes_is_for_its_owner_alone(called, umask, tmp_path):
    assert called("init", tmp_path / "north", "--name", "north", "--units", "100")[0] == 0
    made = list((tmp_path / "north").rglob("*"))
    assert {path.name for path in made} >= {"site.yaml", "images", "state", "keys", "auth.pub", "signing.key"}
    assert not [path.name for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077]
