"""Programs that are kept running: why one ended, when it is started again, and that none outlives its keeper."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from protocol import flower
from protocol.errors import ProcessError
from protocol.flower import Keeper, Program, alone, environment, program_path, reason_in, run_until_stopped

ROOT = Path(__file__).resolve().parents[2]


def program(folder, code, name="worker"):
    return Program(name=name, command=[sys.executable, "-c", code], log=folder / f"{name}.log")


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(flower, "BACK_OFF_S", (0.05, 0.15))


def test_the_command_is_in_sight_as_one_would_type_it(tmp_path):
    said = []
    with Keeper([program(tmp_path, "import time; time.sleep(60)")], restart=False, say=said.append) as keeper:
        keeper.look()
        assert keeper.running("worker")
    assert said == [f"worker: {sys.executable} -c 'import time; time.sleep(60)'"]
    assert not keeper.running("worker")


def test_a_program_that_ends_stops_all_unless_restarting_was_asked_for(tmp_path):
    code = "print('fine so far'); print('ERROR: Exit Code: 305'); print('no such server'); raise SystemExit(3)"
    with Keeper([program(tmp_path, code)], restart=False, say=lambda line: None) as keeper:
        until(lambda: not keeper.running("worker"))
        with pytest.raises(ProcessError) as caught:
            keeper.look()
    assert str(caught.value) == (
        f"worker ended with exit code 3: ERROR: Exit Code: 305 no such server (all of it in {tmp_path}/worker.log; "
        "--supervise starts it again)"
    )


@pytest.mark.usefixtures("quick")
def test_it_is_started_again_after_pauses_that_grow_and_each_end_has_its_reason(tmp_path):
    said = []
    with Keeper([program(tmp_path, "print('gone'); raise SystemExit(1)")], restart=True, say=said.append) as keeper:
        until(lambda: keeper.look() or len(said) >= 5)
    ends = said[1:5]
    assert [line.rsplit(" in ", 1)[1] for line in ends] == ["0.05 s", "0.1 s", "0.15 s", "0.15 s"]
    assert all(line.startswith("worker ended with exit code 1: gone; starting it again in ") for line in ends)


@pytest.mark.usefixtures("quick")
def test_a_signal_is_named(tmp_path):
    said = []
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Keeper([program(tmp_path, code)], restart=True, say=said.append) as keeper:
        until(lambda: keeper.look() or len(said) >= 2)
    assert said[1].startswith("worker ended with signal SIGKILL: it said nothing; ")


def test_the_reason_is_the_last_error_of_this_start_without_colours(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"ERROR: of an earlier start\n")
    start = log.stat().st_size
    assert reason_in(log, start) == "it said nothing"
    with log.open("ab") as file:
        file.write(b"INFO: begins\n\x1b[91mERROR \x1b[0m:     Exit Code: 305\nNot let in.\n\nINFO: shut down\n")
    assert reason_in(log, start) == "ERROR : Exit Code: 305 Not let in. INFO: shut down"
    assert reason_in(tmp_path / "none") == "its log cannot be read"
    with log.open("ab") as file:
        file.write(b"ERROR: the server says \x1b]0;owned\x07 \x1b[2Jgo\n")
    assert reason_in(log, start) == "ERROR: the server says ]0;owned [2Jgo"


def test_what_was_started_ends_with_a_keeper_that_is_killed(tmp_path):
    code = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from protocol.flower import Keeper, Program
        sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        one = Program(name="one", command=[sys.executable, "-c", sleeper], log=Path({str(tmp_path)!r}) / "one.log")
        with Keeper([one], restart=False):
            time.sleep(600)
        """
    )
    keeper = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "one.log").is_file() and (tmp_path / "one.log").read_text().strip())
        child = int((tmp_path / "one.log").read_text())
        assert alive(child)
    finally:
        keeper.kill()
        keeper.wait()
    until(lambda: not alive(child))


def test_the_loop_ends_at_sigterm_and_gives_the_handlers_back(tmp_path):
    before, looked = signal.getsignal(signal.SIGTERM), []

    def work():
        looked.append(1)
        if len(looked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with Keeper([program(tmp_path, "import time; time.sleep(60)")], restart=False, say=lambda line: None) as keeper:
        run_until_stopped(keeper, work, every_s=0.01)
        assert len(looked) == 3
        run_until_stopped(keeper, work, until=lambda: len(looked) == 5, every_s=0.01)
    assert len(looked) == 5
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_folder_has_one_client_at_a_time(tmp_path):
    with alone(tmp_path, "mumc-site start"), pytest.raises(ProcessError) as caught, alone(tmp_path, "mumc-site start"):
        pass
    assert str(caught.value) == f"mumc-site start is at work for {tmp_path} already; stop that one first"
    with alone(tmp_path, "mumc-site start"):
        pass


def test_programs_are_quiet_and_reach_the_loopback_without_a_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example.org,localhost")
    found = environment()
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["NO_PROXY"] == "intranet.example.org,localhost,127.0.0.1"
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_program_that_is_not_installed_is_named():
    assert Path(program_path("flower-supernode")).is_file()
    with pytest.raises(ProcessError, match=r"flower-nothing is not installed beside .*; install fedmumc again"):
        program_path("flower-nothing")
