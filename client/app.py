"""The ClientApp: three actions of the protocol, each answered by one function of the site's side."""

from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.faults import answer_faults
from client.finetune import evaluate_vqa, finetune_site
from client.gate import keep_policy
from client.pretrain import pretrain_site
from client.seal import seal_replies
from client.site import open_site
from protocol.errors import MessageError
from protocol.messages import Order
from protocol.records import order_from_record, to_record

Arrays = dict[str, np.ndarray[Any, Any]]

app = ClientApp(mods=[answer_faults, seal_replies, keep_policy])


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    """Train on the site's captions; the difference to the weights that came leaves."""
    order, base = read_order(message)
    report, update = pretrain_site(order, base, open_site(context))
    return Message(to_record(report, update), reply_to=message)


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    """Fine-tune and evaluate on the site's questions; only metrics leave."""
    order, base = read_order(message)
    return Message(to_record(finetune_site(order, base, open_site(context))), reply_to=message)


@app.evaluate("vqa")
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the site's own fine-tuned model again; only metrics leave."""
    order, weights = read_order(message)
    if weights:
        raise MessageError("an order to evaluate came with weights; the site's own model is what is evaluated")
    return Message(to_record(evaluate_vqa(order, open_site(context))), reply_to=message)


def read_order(message: Message) -> tuple[Order, Arrays]:
    """The order in a message and the weights beside it.

    Raises:
        ProtocolError: the message holds no valid order, or one for another action than its type says.
    """
    order, base = order_from_record(message.content)
    if order.action != message.metadata.message_type:
        raise MessageError(f"an order to {order.action} came in a message of type {message.metadata.message_type}")
    return order, base
