import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.faults import answer_faults
from configs.loader import ConfigurationError
from mumc_model.errors import CheckpointError, ConfigError, DataError, DeviceError, DivergedError, RanksError
from protocol.errors import StaleError
from protocol.records import reply_from_record

CANARY = "/archive/Smith^John/1.2.840.113619.png"


def order(site):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(RecordDict(), 101, "train.pretrain")
    return message, Context(run_id=1, node_id=101, node_config={"site": str(site)}, state=RecordDict(), run_config={})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError(CANARY), "data"),
        (ConfigError(CANARY), "configuration"),
        (ConfigurationError(CANARY), "configuration"),
        (DeviceError(CANARY), "device"),
        (DivergedError(CANARY), "diverged"),
        (RanksError(CANARY), "processes"),
        (CheckpointError(CANARY), "weights"),
        (StaleError(CANARY), "stale"),
        (torch.OutOfMemoryError(CANARY), "out_of_memory"),
        (FileNotFoundError(2, "gone", CANARY), "disk"),
        (RuntimeError(CANARY), "internal"),
    ],
)
def test_a_fault_leaves_as_a_code_and_its_text_stays_in_the_site_s_log(tmp_path, error, code):
    message, context = order(tmp_path)

    def fail(message, context):
        raise error

    reply = answer_faults(message, context, fail)
    refusal, arrays = reply_from_record(reply.content)
    assert (refusal.code, arrays) == (code, {})
    assert "Smith" not in refusal.text
    assert "Smith" in (tmp_path / "state" / "site.log").read_text()


def test_an_answer_passes_through_untouched(tmp_path):
    message, context = order(tmp_path)
    answer = Message(RecordDict(), reply_to=message)
    assert answer_faults(message, context, lambda m, c: answer) is answer
