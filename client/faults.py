"""The outermost layer of the client: a fault's text stays at the site, a code leaves it."""

import logging
from collections.abc import Callable

from flwr.app import Context, Message

from client.errors import GateError
from client.privacy.errors import PrivacyError
from client.site import site_log
from configs.loader import ConfigurationError
from mumc_model.errors import CheckpointError, ConfigError, DataError, DeviceError, DivergedError, RanksError
from protocol.errors import ProtocolError
from protocol.messages import Refusal
from protocol.records import to_record
from protocol.secagg.errors import SecaggError

CallNext = Callable[[Message, Context], Message]

_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (DataError, "data", "the site's data cannot be used"),
    ((ConfigError, ConfigurationError), "configuration", "the run and the site's configuration do not fit"),
    (DivergedError, "diverged", "the loss is no longer a number; lower the learning rate"),
    (DeviceError, "device", "the device that the site names is not there"),
    (RanksError, "processes", "a process of the site's training was lost"),
    (CheckpointError, "weights", "the weights do not fit the model"),
    (OSError, "disk", "the site's disk could not be read or written"),
)


def answer_faults(message: Message, context: Context, call_next: CallNext) -> Message:
    """A Flower mod: whatever is raised inside becomes a coded refusal; the details go to the site's own log."""
    try:
        return call_next(message, context)
    except Exception as error:
        site_log(context).error("%s failed", message.metadata.message_type, exc_info=error)
        return Message(to_record(refusal(error)), reply_to=message)


def refusal(error: Exception) -> Refusal:
    """What the server may know of a fault: its kind, never its text, which may quote paths or records.

    The gate's own words are about the order and the site's limits only, and those of secure aggregation about public
    names, counts and keys; they are passed on.
    """
    if isinstance(error, GateError | SecaggError):
        return Refusal(code=error.code, text=str(error))
    if isinstance(error, PrivacyError):
        return Refusal(code=error.code, text="the privacy rules of the site do not allow it; see its log")
    if isinstance(error, ProtocolError):
        return Refusal(code=error.code, text="the order cannot be followed; see the site's log")
    # By its name, since this runs where torch is not loaded.
    if type(error).__name__ == "OutOfMemoryError":
        return Refusal(code="out_of_memory", text="the device's memory does not suffice; see the site's log")
    for kinds, code, text in _CODES:
        if isinstance(error, kinds):
            return Refusal(code=code, text=f"{text}; see the site's log")
    return Refusal(code="internal", text="an unexpected fault; see the site's log")


logging.getLogger("fedmumc").addHandler(logging.NullHandler())
