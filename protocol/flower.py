"""Flower's own programs, as both ends start them: a quiet environment, the command in sight, restarts with a reason."""

import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from protocol.errors import ProcessError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Nothing calls home, looks for updates or fetches anything."""
LOOPBACK = "127.0.0.1"
BACK_OFF_S = (1.0, 30.0)
"""First and longest pause before a program that ended is started again; each pause is twice the one before."""
STEADY_S = 120.0
"""After this long a program counts as well again, and the pauses begin anew."""
GRACE_S = 15.0
_TAIL_BYTES = 4000
_ERROR_LINES = 4
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program: what is run, and where its output goes."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """The command as a person would type it."""
        return " ".join(f"'{word}'" if " " in word or '"' in word else word for word in self.command)


class Keeper:
    """Keeps programs running, or says why it does not.

    Args:
        programs: Started in this order, stopped in the other.
        restart: Whether one that ended is started again.
        say: Where lines for a person go.
    """

    def __init__(self, programs: Sequence[Program], *, restart: bool, say: Say = print) -> None:
        self._programs, self._restart, self._say = programs, restart, say
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._since: dict[str, float] = {}
        self._from: dict[str, int] = {}
        self._pause: dict[str, float] = {}
        self._again: dict[str, float] = {}

    def __enter__(self) -> "Keeper":
        """Start every program."""
        for program in self._programs:
            self._say(f"{program.name}: {program.line()}")
            self._start(program)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every program, the last one first."""
        for program in reversed(self._programs):
            self._stop(program)

    def look(self) -> None:
        """See to programs that have ended.

        Raises:
            ProcessError: one has, and restarting was not asked for.
        """
        for program in self._programs:
            if program.name in self._again:
                if time.monotonic() >= self._again[program.name]:
                    del self._again[program.name]
                    self._start(program)
            elif (code := self._running[program.name].poll()) is not None:
                self._ended(program, code)

    def running(self, name: str) -> bool:
        """Whether a program is up at this moment."""
        return name not in self._again and self._running[name].poll() is None

    def _ended(self, program: Program, code: int) -> None:
        reason = f"{program.name} ended with {_exit_words(code)}: {reason_in(program.log, self._from[program.name])}"
        if not self._restart:
            raise ProcessError(f"{reason} (all of it in {program.log}; --supervise starts it again)")
        first, longest = BACK_OFF_S
        steady = time.monotonic() - self._since[program.name] > STEADY_S
        pause = first if steady else min(longest, 2 * self._pause.get(program.name, first / 2))
        self._pause[program.name] = pause
        self._again[program.name] = time.monotonic() + pause
        self._say(f"{reason}; starting it again in {pause:g} s")

    def _start(self, program: Program) -> None:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            self._from[program.name] = log.tell()
            self._running[program.name] = subprocess.Popen(
                list(program.command),
                env={**environment(), **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._since[program.name] = time.monotonic()

    def _stop(self, program: Program) -> None:
        process = self._running.get(program.name)
        if process is None or process.poll() is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def run_until_stopped(
    keeper: Keeper, work: Callable[[], None], *, until: Callable[[], bool] = lambda: False, every_s: float = 0.5
) -> None:
    """Call `work` again and again while the keeper looks after its programs, until SIGTERM, SIGINT or `until()`.

    Raises:
        ProcessError: a program ended and is not to be restarted.
    """
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not stopped and not until():
            keeper.look()
            work()
            time.sleep(every_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder's `state/` for one long command; the hold ends with its process, however that ends.

    Raises:
        ProcessError: the same command holds it already.
    """
    (folder / "state").mkdir(exist_ok=True)
    with (folder / "state" / "start.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProcessError(f"{command} is at work for {folder} already; stop that one first") from None
        yield


def environment(*direct: str) -> dict[str, str]:
    """This process's environment with everything quiet, and the loopback and these hosts never through a proxy.

    Libraries read it when they are imported or make a client, and children inherit it.
    """
    found = {**os.environ, **QUIET}
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in found.get(name, "").split(",") if host]
        found[name] = ",".join(dict.fromkeys([*hosts, LOOPBACK, "localhost", *direct]))
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", "")])
    return found


def program_path(name: str) -> str:
    """Where one of Flower's programs is installed, beside this Python.

    Raises:
        ProcessError: it is not.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise ProcessError(f"{name} is not installed beside {sys.executable}; install fedmumc again")
    return found


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


def reason_in(log: Path, start: int = 0) -> str:
    """Why a program ended, as its log says from the byte `start` on: its last error, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
            text = _COLOUR.sub("", file.read().decode(errors="replace"))
            lines = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
    except OSError:
        return "its log cannot be read"
    said = [" ".join(line.split()) for line in lines if line.strip()]
    errors = [number for number, line in enumerate(said) if line.startswith("ERROR")]
    return " ".join(said[errors[-1] : errors[-1] + _ERROR_LINES])[:400] if errors else (said or ["it said nothing"])[-1]


def _end_with_parent() -> None:
    """In the new program: end when whoever keeps it is killed, so that no second one runs beside its successor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        process.send_signal(number)


def _exit_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
