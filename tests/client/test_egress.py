"""A site's task talks to nobody: a real process that answers orders, watched from inside and by the kernel.

Inside, an audit hook sees every address that Python looks up or connects to. Outside, the process has a network
namespace of its own without any way out, whose kernel counts what any library tried to send, in whatever language.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.supercore.task_identity import TaskIdentity

from client.log import site_log_file
from protocol.bundle import code_digest, installed_bundle
from protocol.flower import QUIET
from tests.client.joined import NODES, Federation

ROOT = Path(__file__).resolve().parents[2]
TASK = """
import json, sys

seen = []
WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostby")
sys.addaudithook(lambda event, args: seen.append(f"{event} {args[1:]}") if event.startswith(WATCHED) else None)

def sent():
    rows = [line.split() for line in open("/proc/net/snmp")]
    pairs = zip(rows[::2], rows[1::2])
    named = {f"{names[0]}{name}": int(value) for names, values in pairs for name, value in zip(names[1:], values[1:])}
    tried = ("Ip:OutRequests", "Ip:OutNoRoutes", "Tcp:ActiveOpens", "Udp:OutDatagrams")
    return sum(named[name] for name in tried)

from flwr.app import Context, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message
from flwr.supercore.task_identity import TaskIdentity
from pathlib import Path

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
place, root, installed = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
before = sent()
from client.task import answer

for order in sorted(place.glob("order-*")):
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    message = message_from_proto(Message.FromString(order.read_bytes()))
    reply = answer(message, context, (place / "bundle").read_bytes(), root, installed)
    order.with_name(order.name.replace("order", "reply")).write_bytes(message_to_proto(reply).SerializeToString())
quiet = sent() - before

import socket
called = len(seen)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=0.2)
except OSError:
    pass
print(json.dumps({"seen": seen[:called], "sent": quiet, "control": [len(seen) - called, sent() - before - quiet]}))
"""
"""Answers orders and says what it saw; at the end it does try to connect, to show that it would have been seen."""


def alone():
    """The command that gives a process a network of its own, which leads nowhere; None where that is not allowed."""
    command = [shutil.which("unshare") or "unshare", "--net", *(["--map-root-user"] if os.getuid() else [])]
    try:
        return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else None
    except OSError:
        return None


@pytest.fixture(scope="module")
def answered(tmp_path_factory, two_joined, server):
    """What one process of the site says after pre-training, fine-tuning and evaluating, and the federation."""
    place = Path(shutil.copytree(two_joined, tmp_path_factory.mktemp("egress") / "two"))
    federation = Federation.open(place, server)
    post = federation.post()
    bundle = installed_bundle()
    (place / "bundle").write_bytes(bundle)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    for number, order in enumerate((server.pretrain(), server.finetune(), server.evaluate())):
        message = Message(federation.sealed(post, order), NODES["north"], order.action)
        message.metadata.__dict__["_message_id"] = f"message-{number}"
        (place / f"order-{number}").write_bytes(message_to_proto(message).SerializeToString())
    # Whether the libraries are told to be quiet must not matter.
    environment = {name: value for name, value in os.environ.items() if name not in QUIET}
    command = [*(alone() or []), sys.executable, "-c", TASK, place, federation.sites["north"], code_digest(bundle)]
    ended = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return federation, json.loads(ended.stdout.splitlines()[-1]), ended.stdout


def test_the_task_answers_every_kind_of_order_without_any_network(answered):
    federation, _, _ = answered
    place = federation.home.root.parent
    lines = site_log_file(federation.sites["north"]).entries()
    answers = [(line["stage"], line["answer"]) for line in lines if line["kind"] == "reply"]
    assert answers == [("train.pretrain", "report"), ("train.finetune", "report"), ("evaluate.vqa", "report")]
    for number in range(3):
        assert MessageProto.FromString((place / f"reply-{number}").read_bytes()).ByteSize()


def test_the_task_looks_up_no_name_and_connects_to_no_address(answered):
    _, told, _ = answered
    assert told["seen"] == []
    assert told["control"][0] >= 1


def test_no_library_of_the_task_sends_anything_in_whatever_language(answered):
    if alone() is None:
        pytest.skip("this machine lets nobody make a network namespace, and the counters of a shared one tell nothing")
    _, told, _ = answered
    assert told["sent"] == 0
    assert told["control"][1] >= 1


def test_the_task_prints_nothing_of_the_site(answered):
    _, _, printed = answered
    assert len(printed.splitlines()) == 1
