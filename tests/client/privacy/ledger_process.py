"""Processes of their own that charge a ledger: killed at a chosen call of the system, or many at once.

`python -m tests.client.privacy.ledger_process kill FOLDER` does each piece of work again and again, each time on a
fresh copy of a site and killed one call later than the time before, and prints what each reopened ledger then said.
`... hammer SITE TIMES` charges one step so many times and prints the ids that were acknowledged.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from client.privacy.errors import BudgetExceededError
from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from protocol.signing import new_key
from tests.client.privacy.officer import NAME, PATIENTS, approved_site, charge, policy, steps_of, write_site

CALLS = ("write", "fsync", "ftruncate", "rename", "replace")
SHORT, LONG = 3, 10
KEY = new_key()


def reserve(root: Path) -> None:
    Ledger.open(root).reserve(charge(LONG, round=2), units=[*PATIENTS, "p4"])


def reconcile(root: Path) -> None:
    ledger = Ledger.open(root)
    ledger.reconcile(ledger.reservations[-1].id, SHORT)


def exclude(root: Path) -> None:
    Ledger.open(root).exclude("p9")


def lower(root: Path) -> None:
    Ledger.open(root).approve(sign_policy(policy(9, epsilon=5.0), NAME, KEY))


def reopen(root: Path) -> None:
    Ledger.open(root)


def nothing_yet(root: Path) -> None:
    write_site(root)


def charged(root: Path) -> None:
    approved_site(root, KEY)
    Ledger.open(root).reserve(charge(LONG), units=PATIENTS)


def torn(root: Path) -> None:
    charged(root)
    with (root / "state/privacy/ledger.jsonl").open("ab") as file:
        file.write(b'{"attempt":1,"clipping')


SCENARIOS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "the first approval": (nothing_yet, lower),
    "a later approval": (charged, lower),
    "reserve": (charged, reserve),
    "reconcile": (charged, reconcile),
    "exclude": (charged, exclude),
    "reserve after a torn row": (torn, reserve),
    "open after a torn row": (torn, reopen),
}


def kill_at(point: int, log: Path) -> None:
    """Let this process die at the point: before, within or after one of the calls that change the disk."""
    seen = 0

    def hook(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def hooked(*args: object, **kwargs: object) -> object:
            nonlocal seen
            for moment in ("before", "within", "after"):
                if moment == "within" and name != "write":
                    continue
                if moment == "after":
                    result = real(*args, **kwargs)
                if seen == point:
                    if moment == "within":
                        real(args[0], args[1][: len(args[1]) // 2])  # type: ignore[index, arg-type]
                    log.write_text(f"{moment} {name}")
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1
            return result

        return hooked

    for name in CALLS:
        setattr(os, name, hook(name, getattr(os, name)))


def killed_at_every_point(work: Callable[[Path], None], pristine: Path, folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while not found or found[-1]["killed"]:
        place = folder / f"{len(found)}"
        shutil.copytree(pristine, place)
        os.environ["MUMC_REGISTRY"] = str(place / "registry")
        child = os.fork()
        if not child:
            kill_at(len(found), place / "log")
            work(place / "site")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        found.append({"killed": os.WIFSIGNALED(status), "status": status, **after(place, work)})
    return found


def after(place: Path, work: Callable[[Path], None]) -> dict[str, object]:
    """What the next process finds, and whether it can go on."""
    root = place / "site"
    ledger = Ledger.open(root)
    seen: dict[str, object] = {
        "point": (place / "log").read_text() if (place / "log").exists() else "the end",
        "steps": steps_of(ledger),
        "charges": len(ledger.reservations),
        "excluded": bool(ledger.excluded(["p9"])),
    }
    rows = [json.loads(line)["kind"] for line in _lines(root)]
    ledger.approve(sign_policy(policy(20), NAME, KEY))
    ledger.reserve(charge(1), units=PATIENTS)
    again = Ledger.open(root)
    return seen | {"rows": rows, "steps_then": steps_of(again), "head_kept": again.head.count == len(_lines(root))}


def _lines(root: Path) -> list[bytes]:
    path = root / "state/privacy/ledger.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def kill(folder: Path) -> None:
    found = {}
    for scenario, (prepare, work) in SCENARIOS.items():
        pristine = folder / scenario / "pristine"
        os.environ["MUMC_REGISTRY"] = str(pristine / "registry")
        prepare(pristine / "site")
        found[scenario] = killed_at_every_point(work, pristine, folder / scenario)
    print(json.dumps(found))


def hammer(root: Path, times: int) -> None:
    ledger, ids = Ledger.open(root), []
    for number in range(times):
        try:
            ids.append(ledger.reserve(charge(LONG, round=number + 1), units=PATIENTS))
        except BudgetExceededError:
            break
    print(json.dumps(ids))


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        kill(Path(sys.argv[2]))
    else:
        hammer(Path(sys.argv[2]), int(sys.argv[3]))
