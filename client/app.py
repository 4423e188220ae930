"""The ClientApp: the actions of the protocol, each answered by one function of the site's side.

Training is imported where it is asked for: the stages of secure aggregation around it load no torch.
"""

from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.faults import answer_faults
from client.gate import keep_policy
from client.seal import seal_replies
from client.secagg import Masking
from client.secagg_store import SecaggStore
from client.site import open_site, site_log, site_root
from client.statistics import Counting
from protocol.errors import MessageError
from protocol.messages import Order, Report
from protocol.records import order_from_record, to_record

Arrays = dict[str, np.ndarray[Any, Any]]

app = ClientApp(mods=[answer_faults, seal_replies, keep_policy])


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    """Train on the site's captions; the difference to the weights that came leaves, or masked words of it."""
    order, base = read_order(message)

    def train(asked: Order) -> tuple[Report, Arrays]:
        from client.pretrain import pretrain_site

        # Under masks the session keeps what is trained, and erases it.
        return pretrain_site(asked, base, open_site(context), keep=not order.masking)

    report, update = masking(order, context).mask(base, train) if order.masking else train(order)
    return Message(to_record(report, update), reply_to=message)


@app.train("rehearse")
def rehearse(message: Message, context: Context) -> Message:
    """Two steps on synthetic data, through everything that a round goes through."""
    from client.rehearse import rehearse_site

    order, base = read_order(message)
    report, update = rehearse_site(order, base, site_root(context))
    return Message(to_record(report, update), reply_to=message)


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    """Fine-tune and evaluate on the site's questions; only metrics leave."""
    from client.finetune import finetune_site

    order, base = read_order(message)
    SecaggStore.of(site_root(context), order.run_id).end()
    return Message(to_record(finetune_site(order, base, open_site(context))), reply_to=message)


@app.evaluate("vqa")
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the site's own fine-tuned model again; only metrics leave."""
    from client.finetune import evaluate_vqa

    order, weights = read_order(message)
    if weights:
        raise MessageError("an order to evaluate came with weights; the site's own model is what is evaluated")
    return Message(to_record(evaluate_vqa(order, open_site(context))), reply_to=message)


@app.query("statistics_advertise")
@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Fresh keys for a session of secure aggregation."""
    order, _ = read_order(message)
    return Message(to_record(masking(order, context).advertise()), reply_to=message)


@app.query("statistics_share")
@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Sealed shares of this site's secrets for its peers."""
    order, _ = read_order(message)
    return Message(to_record(masking(order, context).share()), reply_to=message)


@app.query("statistics_mask")
def count(message: Message, context: Context) -> Message:
    """The counts of the site's data card as masked words."""
    order, _ = read_order(message)
    return Message(to_record(*counting(order, context).count()), reply_to=message)


@app.query("statistics_agree")
@app.query("agree")
def agree(message: Message, context: Context) -> Message:
    """Whose masked words are in the sum, signed."""
    order, _ = read_order(message)
    return Message(to_record(masking(order, context).agree()), reply_to=message)


@app.query("statistics_unmask")
@app.query("unmask")
def unmask(message: Message, context: Context) -> Message:
    """The shares that open the sum."""
    order, _ = read_order(message)
    return Message(to_record(masking(order, context).unmask()), reply_to=message)


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """What the federation publishes, kept beside the data card."""
    order, _ = read_order(message)
    return Message(to_record(counting(order, context).take_in()), reply_to=message)


def masking(order: Order, context: Context) -> Masking:
    """The site's part in the session that the order belongs to."""
    return counting(order, context) if order.statistics else Masking(site_root(context), order, site_log(context))


def counting(order: Order, context: Context) -> Counting:
    """The same where counts are summed."""
    return Counting(site_root(context), order, site_log(context))


def read_order(message: Message) -> tuple[Order, Arrays]:
    """The order in a message and the weights beside it.

    Raises:
        ProtocolError: the message holds no valid order, or one for another action than its type says.
    """
    order, base = order_from_record(message.content)
    if order.action != message.metadata.message_type:
        raise MessageError(f"an order to {order.action} came in a message of type {message.metadata.message_type}")
    return order, base
