import pickle
from pathlib import Path

import pytest
import torch

from mumc_model.errors import CheckpointError
from mumc_model.reference import import_reference


class Payload:
    """What a hostile checkpoint carries: opening it the usual way would make a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


def test_a_payload_in_a_checkpoint_is_refused_and_never_runs(tmp_path):
    target = tmp_path / "ran"
    torch.save({"model": {"temp": torch.ones(())}, "config": Payload(target)}, tmp_path / "new.pth")
    torch.save(Payload(target), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(target)))
    for name in ("new.pth", "old.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="was not opened"):
            import_reference(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"model": {"a": 1}}, "holds no weights"),
        ({"model": {"resnet.conv1.weight": torch.ones(2)}}, "does not hold MUMC's weights"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        import_reference(tmp_path / "other.pth")


def test_a_missing_or_broken_file_says_so_without_its_path(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth cannot be read") as caught:
        import_reference(tmp_path / "none.pth")
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="damaged"):
        import_reference(tmp_path / "half.pth")
