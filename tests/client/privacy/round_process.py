"""Rounds that a site answers in a process of its own, which may kill itself between two private steps.

`python -m tests.client.privacy.round_process FOLDER KILL_AFTER ROUND...`: the process dies by SIGKILL once so many
steps of a round are done; 0 lets it live, and what it sent is then in FOLDER/../sent-ROUND.
"""

import os
import signal
import sys
from pathlib import Path

from client.privacy.train import PrivatePretrainer
from protocol.messages import Report
from tests.client.privacy.private_rounds import PrivateServer, said


def dying_after(steps: int):
    """Training that is killed once it has taken so many steps."""
    whole = PrivatePretrainer.run

    def run(trainer, site, *, first_step: int, **settings):
        def on_step(step, losses):
            if step + 1 - first_step == steps:
                os.kill(os.getpid(), signal.SIGKILL)

        return whole(trainer, site, first_step=first_step, on_step=on_step, **settings)

    return run


def main(folder: str, kill_after: str, *rounds: str) -> None:
    if int(kill_after):
        PrivatePretrainer.run = dying_after(int(kill_after))
    server = PrivateServer()
    for number in rounds:
        answer = server.ask(Path(folder), server.pretrain(int(number)))
        assert isinstance(answer.message, Report), answer.message
        (Path(folder).parent / f"sent-{number}").write_text(said(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
