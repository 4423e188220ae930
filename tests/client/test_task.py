"""The site's own task runner: of the code that a run brings along only a digest is ever taken."""

import io
import os
import signal
import socket
import zipfile

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.runner import warm_context
from client.task import GIVEN_UP, answer, run_task
from protocol.bundle import code_digest, installed_bundle
from protocol.messages import Refusal, Report
from protocol.records import reply_from_record
from tests.client.joined import NODES


@pytest.fixture(scope="module")
def ours():
    return installed_bundle()


def tampered(bundle, spy):
    """The same bundle with the policy check gone, and code in every file that writes a file as soon as it is run."""
    sting = f"open({str(spy)!r}, 'a').write('run')\n"
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as source, zipfile.ZipFile(target, "w") as changed:
        for member in source.infolist():
            content = source.read(member)
            if member.filename == "client/gate.py":
                content = b"def keep_policy(message, context, call_next):\n    return call_next(message, context)\n"
            if member.filename.endswith(".py"):
                content += sting.encode()
            changed.writestr(member.filename, content)
    return target.getvalue()


def ask(federation, bundle, order, installed, rehearsal=False):
    """What the task answers to a sealed order that came with this bundle."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(federation.sealed(federation.post(), order), NODES["north"], order.action)
    message.metadata.__dict__["_message_id"] = "message-1"
    config = {"site": "/elsewhere", "trial": True, "code": "c" * 64}
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    root = str(federation.sites["north"])
    return reply_from_record(answer(message, context, bundle, root, installed, rehearsal).content)[0]


def test_a_run_with_the_installed_code_is_answered(federation, ours):
    assert isinstance(ask(federation, ours, federation.run.pretrain(), code_digest(ours)), Report)


def test_a_bundle_without_the_policy_check_is_refused_and_never_run(federation, ours, tmp_path):
    bundle = tampered(ours, tmp_path / "spy")
    reply = ask(federation, bundle, federation.run.pretrain(), code_digest(ours))
    assert reply == Refusal(
        code="policy_code",
        text=f"the run's code has digest {code_digest(bundle)[:16]}, and this site accepts {code_digest(ours)[:16]}; "
        "install the same fedmumc at both ends",
    )
    assert not (tmp_path / "spy").exists()


def test_even_where_the_site_accepts_it_the_installed_check_holds_and_only_installed_code_runs(
    federation, ours, tmp_path
):
    bundle = tampered(ours, tmp_path / "spy")
    federation.limit(code=[code_digest(bundle)], max_steps=1)
    reply = ask(federation, bundle, federation.run.pretrain(), code_digest(ours))
    assert isinstance(reply, Refusal)
    assert reply.code == "policy_steps"
    federation.limit(code=[code_digest(bundle)])
    assert isinstance(ask(federation, bundle, federation.run.pretrain(round=2), code_digest(ours)), Report)
    assert not (tmp_path / "spy").exists()


def test_what_is_no_bundle_has_no_digest_and_is_refused(federation, ours):
    reply = ask(federation, b"no zip", federation.run.pretrain(), code_digest(ours))
    assert (reply.code, "digest none" in reply.text) == ("policy_code", True)


def test_a_site_that_rehearses_follows_no_other_order(federation, ours):
    reply = ask(federation, ours, federation.run.pretrain(), code_digest(ours), rehearsal=True)
    assert (reply.code, reply.text) == (
        "rehearsing",
        "the site is rehearsing, and follows no order to train.pretrain until it starts",
    )


def test_a_task_that_nobody_waits_for_ends_without_a_traceback(tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        arguments = (address, "token", str(tmp_path), "0" * 64, 0.0, False)
        process = warm_context().Process(target=run_task, args=arguments, daemon=True)
        process.start()
        connection, _ = silent.accept()
        with connection:
            # Flower raises this signal in a task whose run is over.
            os.kill(process.pid, signal.SIGINT)
            process.join(60)
    assert process.exitcode == GIVEN_UP
    assert "Traceback" not in capfd.readouterr().err
