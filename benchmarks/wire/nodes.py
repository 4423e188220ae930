"""Many sites in one process, for `benchmarks/transport.py`: Flower's own connection of a SuperNode, and no ClientApp.

    python nodes.py ADDRESS CA KEYS

Each key in the folder KEYS is a node. It fetches an order with all its arrays and sends back an update of its own, two
pieces at a time, as a SuperNode does; nothing of what it fetches is kept. Until SIGTERM.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supernode.fleet_http_connection import http_request_response

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wire.app import report_of

from protocol.node_keys import read_node_key
from protocol.records import to_record

POLL_S, PIECES = 1.0, 2
stopped = threading.Event()
noise = b""
noise_lock = threading.Lock()


def main(address, ca, keys):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    certificate = Path(ca).read_bytes()
    threads = [
        threading.Thread(target=serve, args=(address, certificate, read_node_key(path.read_bytes()), index))
        for index, path in enumerate(sorted(Path(keys).iterdir()))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(address, ca, key, index):
    """One node, until all of them stop."""
    with http_request_response(
        address, insecure=False, root_certificates=ca, authentication_keys=(key, key.public_key())
    ) as (_, receive, send, _, _, pull, push, confirm):
        while not stopped.is_set():
            got = receive()
            if got is None:
                stopped.wait(POLL_S)
                continue
            message, tree = got
            run = message.metadata.run_id
            asked = fetch(tree, partial(pull, run))
            confirm(run, message.metadata.message_id)
            answer(message, int(asked["values"]), index, send, partial(push, run))


def fetch(tree, pull):
    """What an order asks for; all of its pieces are fetched, and those of arrays thrown away."""
    config = {}

    def keep_small(piece):
        content = pull(piece)
        if content.startswith(b"ConfigRecord "):
            found = inflate_object_from_contents(piece, {piece: content})
            if "values" in found:
                config.update(found)
        return b""

    pull_objects([node.object_id for node in iterate_object_tree(tree)], keep_small, max_concurrent_pulls=PIECES)
    return config


def answer(message, values, index, send, push):
    """Send an update that no other node sends, made of one noise that all share."""
    arrays = ArrayRecord({"float32": Array("float32", (values,), "fedmumc.raw-little-endian", b"")})
    # Put in afterwards, for a record copies what it is made of.
    arrays["float32"].data = window(4 * values, index)
    reply = Message(to_record(report_of(message.metadata.dst_node_id), arrays), reply_to=message)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree, pieces = get_object_tree(reply), get_all_nested_objects(reply)
    wanted, session = send(reply, tree, 0.0)
    with ThreadPoolExecutor(PIECES) as threads:
        list(threads.map(lambda name: push(session, name, pieces[name].deflate()), wanted & pieces.keys()))


def window(size, index):
    """Finite values, at another place of the noise for every node."""
    global noise
    with noise_lock:
        need = size + 4 * 4096
        if len(noise) < need:
            noise = np.random.default_rng(0).standard_normal(need // 4, dtype=np.float32).tobytes()
        return memoryview(noise)[4 * index : 4 * index + size]


if __name__ == "__main__":
    main(*sys.argv[1:])
