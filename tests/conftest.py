"""No test reads or writes what a user's own ledgers left in the home directory; programs, as they are typed."""

import sys

import pytest


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    """The folder that every ledger of the test uses as its machine's registry."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("MUMC_REGISTRY", str(folder))
    return folder


@pytest.fixture
def typed(monkeypatch, capsys):
    """Exit code, output and errors of a program's `main` with these words."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(main, program, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return call


@pytest.fixture
def call(called):
    """What the folder's own program (`called`) prints where it ends as expected."""

    def run(*arguments, expect: int = 0) -> str:
        code, out, err = called(*arguments)
        assert code == expect, (out, err)
        assert "Traceback" not in err
        return err if expect else out

    return run
