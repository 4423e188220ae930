import os
import time

import numpy as np
import pytest

from server.checkpoint import kept_weights, load_arrays, save_round, write_whole
from server.errors import OutputError

WEIGHTS = {"w": np.arange(6, dtype="float32").reshape(2, 3), "temp": np.float32(0.07).reshape(())}


def test_a_checkpoint_reads_back_with_the_moments_of_its_round(tmp_path):
    for round in (1, 2):
        save_round(tmp_path, WEIGHTS, {"first.float32": np.full(7, round, "float32")}, run_id="r", round=round)
    weights = load_arrays(tmp_path / "weights.safetensors")
    assert {n: a.shape for n, a in weights.items()} == {"w": (2, 3), "temp": ()}
    assert all(np.array_equal(weights[n], a) for n, a in WEIGHTS.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["optimizer-0002.safetensors", "weights.safetensors"]
    assert load_arrays(tmp_path / "optimizer-0002.safetensors")["first.float32"][0] == 2


def test_a_crash_between_the_files_leaves_weights_and_moments_of_one_round(tmp_path, monkeypatch):
    save_round(tmp_path, WEIGHTS, {"first.float32": np.ones(7, "float32")}, run_id="r", round=1)
    replaced = []

    def crash_at_the_weights(source, target):
        replaced.append(target)
        if str(target).endswith("weights.safetensors"):
            raise KeyboardInterrupt
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", crash_at_the_weights)
    with pytest.raises(KeyboardInterrupt):
        save_round(tmp_path, {"w": np.zeros(2)}, {"first.float32": np.zeros(7)}, run_id="r", round=2)
    assert len(replaced) == 2
    assert np.array_equal(load_arrays(tmp_path / "weights.safetensors")["w"], WEIGHTS["w"])
    assert load_arrays(tmp_path / "optimizer-0001.safetensors")["first.float32"][0] == 1


def test_a_full_disk_keeps_the_last_checkpoint_and_is_named(tmp_path, monkeypatch):
    save_round(tmp_path, WEIGHTS, {}, run_id="r", round=1)
    before = (tmp_path / "weights.safetensors").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"weights\.safetensors cannot be written: No space left on device"):
        save_round(tmp_path, {"w": np.zeros(2)}, {}, run_id="r", round=2)
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_folder_is_made_when_it_is_missing(tmp_path):
    write_whole(tmp_path / "a" / "b.json", b"{}")
    assert (tmp_path / "a" / "b.json").read_bytes() == b"{}"


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(OutputError, match="there is no file"):
        load_arrays(tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(OutputError, match="damaged or not safetensors"):
        load_arrays(tmp_path / "weights.safetensors")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_the_weights_of_the_last_rounds_stay_under_the_names_of_their_rounds(tmp_path, monkeypatch, links):
    if not links:

        def refuses(source, target):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuses)
    for round in (0, 1, 2, 5, 6):
        save_round(tmp_path, {"w": np.float32([round])}, {}, run_id="r", round=round, keep=3)
    assert names(tmp_path) == ["weights-0002.safetensors", "weights-0005.safetensors", "weights.safetensors"]
    kept = {round: float(load_arrays(path)["w"][0]) for round, path in kept_weights(tmp_path).items()}
    assert kept == {2: 2.0, 5: 5.0, 6: 6.0}


def test_the_first_weights_are_no_round_of_their_own(tmp_path):
    for round in (0, 1):
        save_round(tmp_path, WEIGHTS, {}, run_id="r", round=round, keep=3)
    assert names(tmp_path) == ["weights.safetensors"]


def test_weights_do_not_take_their_place_before_what_lies_beside_them_has(tmp_path, monkeypatch):
    save_round(tmp_path, WEIGHTS, {"first.float32": np.ones(7, "float32")}, run_id="r", round=1)
    rename, placed = os.replace, []

    def slow_beside(source, target):
        if not str(target).endswith("weights.safetensors"):
            time.sleep(0.1)
        rename(source, target)
        placed.append(target.name)

    monkeypatch.setattr(os, "replace", slow_beside)
    moments, step = {"first.float32": np.zeros(7)}, {"float32": np.zeros(7)}
    save_round(tmp_path, WEIGHTS, moments, run_id="r", round=2, step=step)
    assert placed == ["optimizer-0002.safetensors", "step-0002.safetensors", "weights.safetensors"]
