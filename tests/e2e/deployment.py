"""A federation's commands, as people type them: real processes on loopback, each with its output kept."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def call(program, *arguments, code=0, timeout=120):
    """What a command prints, stdout and stderr together, once it has ended with the exit code that is expected."""
    done = subprocess.run(
        [str(BIN / program), *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, f"{program} {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}"
    return done.stdout


class Started:
    """A command at work."""

    def __init__(self, log, program, *arguments):
        self.log = Path(log)
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(BIN / program), *map(str, arguments)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def crash(self):
        """End it and all that it started at once, as a power cut does."""
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        self.process.wait()

    def stop(self):
        """End it as systemd does."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


def wait_for(what, condition, seconds=180, every=0.2):
    """The first truthy value of the condition; `what` may be a callable that explains why it never came."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what() if callable(what) else what} within {seconds} s"
        time.sleep(every)
    return value


def lines_of(path):
    """The whole lines of a file of JSON lines, as far as it is written."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(errors="replace").split("\n")[:-1]]
