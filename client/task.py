"""One order from the SuperNode, answered by the code that is installed here, in a process of its own.

Flower's own `flwr-clientapp` unpacks the bundle that came with the run and runs what is in it. This does not: of the
bundle only a digest is taken, for the gate to compare.
"""

import gc
import logging
import resource
import signal
import sys
import threading

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.runtime.tracing import RuntimeTracingInterceptor
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.app import app
from client.gate import CODE_KEY, INSTALLED_KEY
from client.site import REHEARSAL_KEY, SITE_KEY, site_log
from protocol.bundle import code_digest
from protocol.errors import BundleError, MessageError
from protocol.messages import ACTIONS, Refusal
from protocol.records import to_record

GIVEN_UP = 75
"""Exit code of a task that nobody waits for any more: that of a failure that passes (EX_TEMPFAIL)."""
_NOBODY_WAITS = (KeyboardInterrupt, RunNotRunningException, httpx.HTTPError)
"""So Flower ends a task whose run is over, and one whose SuperNode was started again."""
_log = logging.getLogger("fedmumc.task")


def run_task(address: str, token: str, root: str, installed: str, memory_gib: float, rehearsal: bool) -> None:
    """Fetch the order that the token stands for from the SuperNode at `address`, answer it, and hand the reply over.

    Args:
        address: Of the SuperNode's Runtime API, on the loopback.
        token: Claims one task.
        root: The site's folder.
        installed: Digest of the code that is installed here.
        memory_gib: Most memory that this process may take; 0 for no limit.
        rehearsal: Whether only orders to rehearse are followed.
    """
    # What was imported before stays: looking through it for cycles costs a third of a second each time, and a copy of
    # every page that the process this one was forked from shares with it.
    gc.freeze()
    limit_memory(memory_gib)
    # So Flower ends a task whose run is over; a shell makes what it starts in the background deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    threading.excepthook = lambda fault: _log.debug("a thread ended: %s", fault.exc_type.__name__)
    try:
        _answer_one(address, token, root, installed, rehearsal)
    except _NOBODY_WAITS:
        sys.exit(GIVEN_UP)


def _answer_one(address: str, token: str, root: str, installed: str, rehearsal: bool) -> None:
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeTracingInterceptor(),
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(token),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    try:
        message, context, _, fab = pull_task_input(client)
        push_message(client, answer(message, context, fab.content, root, installed, rehearsal), context)
    except _NOBODY_WAITS:
        raise
    except BaseException:
        lost = "the site's task ended early; see its log"
        push_task_output(client=client, context=None, sub_status=SubStatus.FAILED, details=lost)
        raise
    push_task_output(client=client, context=context, sub_status=SubStatus.COMPLETED, details="")


def answer(
    message: Message, context: Context, bundle: bytes, root: str, installed: str, rehearsal: bool = False
) -> Message:
    """The installed app's reply. The node's configuration is the site's own: what the run says of it is dropped."""
    try:
        code = code_digest(bundle)
    except BundleError:
        code = ""
    came, context.node_config = (
        context.node_config,
        {SITE_KEY: root, CODE_KEY: code, INSTALLED_KEY: installed, REHEARSAL_KEY: rehearsal},
    )
    try:
        return app(message, context) if message.metadata.message_type in ACTIONS else _unknown(message, context)
    finally:
        # The context goes back to the SuperNode, which need not know where the site's folder lies.
        context.node_config = came


def _unknown(message: Message, context: Context) -> Message:
    """The refusal of an order that no handler is named for, so that no layer of the app would answer it."""
    site_log(context).error("an order of the unknown kind %.80r was turned away", message.metadata.message_type)
    refused = Refusal(code=MessageError.code, text="the order cannot be followed; see the site's log")
    return Message(to_record(refused), reply_to=message)


def limit_memory(gib: float) -> None:
    """Let no allocation of this process pass the limit; what needs more ends in a clear refusal."""
    if gib:
        most = int(gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
