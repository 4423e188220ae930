"""A worker process: it must not outlive the run that started it."""

import subprocess
import sys
from multiprocessing import Pipe


def test_a_worker_ends_when_its_parent_is_gone_though_its_pipe_is_open():
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "simulations.worker", str(theirs.fileno()), "1"]
    worker = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE)
    try:
        worker.stdin.close()
        assert worker.wait(timeout=60) == 1
    finally:
        worker.kill()
        ours.close()
        theirs.close()
