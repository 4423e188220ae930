"""A worker process of the local engine: messages in, replies out, as protobuf bytes over a pipe.

Started as `python -m simulations.worker FD THREADS`. Bytes and not pickles: what crosses a process boundary here is
what would cross the network in a deployment. Its standard input carries nothing; it closes when the parent is gone.
"""

import gc
import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import Context, Message


def encode(message: "Message", context: "Context | None" = None) -> list[bytes]:
    """The frames that carry a message (and the node's context) over a pipe."""
    from flwr.common.serde import context_to_proto, message_to_proto

    frames = [message_to_proto(message).SerializeToString()]
    if context is not None:
        frames.append(context_to_proto(context).SerializeToString())
    return frames


def decode_message(frame: bytes) -> "Message":
    """The message that a frame carries."""
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as MessageProto

    return message_from_proto(MessageProto.FromString(frame))


def decode_context(frame: bytes) -> "Context":
    """The node's context that a frame carries."""
    from flwr.common.serde import context_from_proto
    from flwr.proto.message_pb2 import Context as ContextProto

    return context_from_proto(ContextProto.FromString(frame))


def serve(pipe: Connection, threads: int) -> None:
    """Answer messages with the ClientApp until the other end closes."""
    import torch

    from client.app import app
    from mumc_model.memory import reused_memory

    torch.set_num_threads(threads)
    # As a site's task does: what was imported stays, and need not be looked through for cycles in every round.
    gc.freeze()
    # Each order takes about the memory that the one before it has freed.
    with reused_memory():
        while True:
            try:
                message, context = decode_message(pipe.recv_bytes()), decode_context(pipe.recv_bytes())
            except EOFError:
                gc.unfreeze()
                return
            pipe.send_bytes(encode(app(message, context))[0])


def end_with_parent() -> None:
    """End this process when its standard input closes, in the middle of a message too: nobody waits for the reply."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end-with-parent").start()


if __name__ == "__main__":
    end_with_parent()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
