"""No test reads or writes what a user's own ledgers left in the home directory."""

import pytest


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    """The folder that every ledger of the test uses as its machine's registry."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("MUMC_REGISTRY", str(folder))
    return folder
