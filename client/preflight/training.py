"""A few training steps of the run on the site's own records, in a process like the one that will answer orders."""

import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, size, warned
from client.preflight.run import Run, with_vocabulary
from client.preflight.steps import Job, Timing, take_steps
from client.runner import warm_context

PATIENCE_S = 1800.0
ROOMY = 0.8
"""Above this share of what it may take, the memory of a step is worth a word."""
LESS_MEMORY = "lower pretrain.batch_size or raise pretrain.accumulation in the run, or give the site more memory"


def step(case: Case) -> Finding:
    """How long a step takes here, and how much memory."""
    run, limits = case.run, case.config.policy.runs
    if not run.federation.rounds:
        return passed(f"{run.name} has no rounds of pre-training, so there is no step to time")
    job = Job(
        root=case.root,
        recipe=with_vocabulary(run.recipe, case.vocabulary_size),
        vocabulary=tuple(case.tokenizer.vocab) if case.tokenizer else None,
        memory_gib=limits.memory_gib if limits else 0.0,
    )
    with tempfile.TemporaryDirectory(dir=case.root / "state", prefix=".check-") as scratch:
        found = _measure(job, Path(scratch))
    return found if isinstance(found, Finding) else _judge(run, found, job.memory_gib)


def _measure(job: Job, scratch: Path) -> Timing | Finding:
    """The timing of the job's steps, or what kept them from being taken."""
    context = warm_context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=take_steps, args=(there, job, scratch), daemon=True)
    process.start()
    there.close()
    try:
        return _answer(here) if here.poll(PATIENCE_S) else _slow()
    except EOFError:
        process.join()
        return _ended(process.exitcode or 0)
    finally:
        process.kill()
        process.join()


def _answer(pipe: Connection) -> Timing | Finding:
    answer = pipe.recv()
    assert isinstance(answer, Timing | Finding)
    return answer


def _slow() -> Finding:
    return failed(f"three steps are not done within {PATIENCE_S / 60:.0f} minutes", "train a smaller model here")


def _ended(code: int) -> Finding:
    if code == -signal.SIGKILL:
        return failed("the system killed the step, as it does when memory runs out", LESS_MEMORY)
    return failed(f"the step ended with exit code {code}", "run it again; if it ends so again, tell the developers")


def _judge(run: Run, found: Timing, memory_gib: float) -> Finding:
    whole = run.federation.local_steps * found.seconds
    most = found.device_bytes or found.peak_bytes
    shown = f"{found.pairs} pairs in {found.seconds:.2g} s, {size(found.peak_bytes)} of memory"
    if found.device_bytes:
        shown += f", {size(found.device_bytes)} of the device's"
    shown += f"; a round of {run.federation.local_steps} steps takes about {_span(whole)}"
    numbers = {
        "step_seconds": round(found.seconds, 4),
        "round_seconds": round(whole, 1),
        "peak_bytes": found.peak_bytes,
        "device_bytes": found.device_bytes,
        "parameters": found.parameters,
    }
    if whole > run.federation.round_timeout_s:
        return failed(
            f"{shown}, and {run.name} waits {_span(run.federation.round_timeout_s)}",
            "ask the operator for fewer federation.local_steps or a longer federation.round_timeout_s",
            numbers=numbers,
        )
    room = found.device_total_bytes or memory_gib * 2**30
    if room and most > ROOMY * room:
        return warned(f"{shown}, of at most {size(room)}", LESS_MEMORY, numbers=numbers)
    return passed(shown, numbers=numbers)


def _span(seconds: float) -> str:
    for one, word in ((3600, "h"), (60, "min")):
        if seconds >= 2 * one:
            return f"{seconds / one:.1f} {word}"
    return f"{seconds:.0f} s"
