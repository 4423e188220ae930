import numpy as np
import pytest
import torch

from client.state import RunState
from mumc_model.checkpoint import save_weights
from mumc_model.evaluate import AnswerRow

WEIGHTS = {"head": torch.arange(3.0)}


def row(**changes):
    values = {"image": "images/a.png", "question_type": "kind", "answer_type": "OPEN", "truth": "cyst"}
    return AnswerRow(**values | {"prediction": "cyst", "correct": True, "confidence": 0.5} | changes)


def test_a_round_finds_what_the_round_before_left(tmp_path):
    RunState(tmp_path).keep_private_weights(1, WEIGHTS)
    assert torch.equal(RunState(tmp_path).private_weights(before_round=2)["head"], WEIGHTS["head"])


def test_a_round_done_again_starts_where_it_started_before(tmp_path):
    state = RunState(tmp_path)
    state.keep_private_weights(1, WEIGHTS)
    state.keep_private_weights(2, {"head": torch.zeros(3)})
    assert torch.equal(state.private_weights(before_round=2)["head"], WEIGHTS["head"])


def test_after_a_missed_round_nothing_stale_is_found(tmp_path):
    state = RunState(tmp_path)
    state.keep_private_weights(1, WEIGHTS)
    assert state.private_weights(before_round=3) is None


def test_only_the_last_two_rounds_stay_on_the_disk(tmp_path):
    state = RunState(tmp_path)
    for number in (1, 2, 3):
        state.keep_private_weights(number, WEIGHTS)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("left", [0, 5, -1])
def test_what_a_loss_of_power_cut_off_is_missed_and_the_site_s_log_says_so(tmp_path, left):
    state = RunState.of(tmp_path, "run")
    state.keep_private_weights(1, WEIGHTS)
    state.keep_residual(1, {"float32": np.ones(30, np.float32)})
    for path in state.folder.iterdir():
        path.write_bytes(path.read_bytes()[:left])
    assert state.private_weights(before_round=2) is None
    assert state.residual(before_round=2) is None
    told = (tmp_path / "state" / "site.log").read_text()
    assert "pretrain-after-round-00001.safetensors is cut off; round 2 begins here as after one that was missed" in told
    assert "residual-after-round-00001.safetensors is cut off; what the codec took from earlier updates is lost" in told


def test_a_file_of_full_length_whose_second_half_never_reached_the_disk_is_missed_too(tmp_path):
    state = RunState.of(tmp_path, "run")
    state.keep_private_weights(1, {"head": torch.ones(1000)})
    state.keep_residual(1, {"float32": np.ones(1000, np.float32)})
    for path in state.folder.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert state.private_weights(before_round=2) is None
    assert state.residual(before_round=2) is None


def test_a_file_that_an_earlier_version_wrote_without_a_checksum_is_read(tmp_path):
    save_weights(tmp_path / "pretrain-after-round-00001.safetensors", WEIGHTS)
    assert torch.equal(RunState(tmp_path).private_weights(before_round=2)["head"], WEIGHTS["head"])


def test_answered_questions_come_back_as_they_were_kept(tmp_path):
    state = RunState(tmp_path)
    assert state.rows("test") == []
    state.keep_rows("test", [row(), row(correct=False)])
    assert [r.correct for r in state.rows("test")] == [True, False]
