"""One process at a time, and a word on why another one waits."""

import subprocess
import sys
import time

import pytest

from protocol.chainfile import ChainFile
from protocol.errors import LogError
from protocol.lock import exclusive
from protocol.signing import new_key

HOLD = "import sys, time\nfrom pathlib import Path\nfrom protocol.lock import exclusive\n" + (
    "with exclusive(Path(sys.argv[1]), RuntimeError):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_a_lock_that_is_held_too_long_is_an_error_with_the_time_and_a_remedy(tmp_path):
    with (
        exclusive(tmp_path / "lock", ValueError),
        pytest.raises(ValueError, match=r"has held .*lock for 0\.05 s; see what it does"),
        exclusive(tmp_path / "lock", ValueError, patience_s=0.05),
    ):
        pass


def test_a_lock_is_free_once_the_process_that_held_it_was_killed(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LogError), exclusive(path, LogError, patience_s=0.05):
            pass
        holder.kill()
    with exclusive(path, LogError, patience_s=0.05):
        pass


def test_a_log_that_another_process_holds_says_so_and_not_that_its_disk_is_full(tmp_path, monkeypatch):
    log, clock = ChainFile(tmp_path / "log.jsonl", "a-log"), iter([0.0, 1e9])
    with exclusive(tmp_path / "log.lock", LogError):
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        with pytest.raises(LogError, match="another process has held"):
            log.append(new_key(), {"kind": "order"})
