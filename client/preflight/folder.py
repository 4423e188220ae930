"""The site's folder beside its data: settings, the place for state, and the two records that only grow."""

import os
import tempfile

from client.config import read_site_config
from client.log import site_log_file
from client.log_check import check_site_log
from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, warned
from client.privacy.ledger import Ledger


def settings(case: Case) -> Finding:
    """Whether site.yaml is there and means something."""
    if not case.root.is_dir():
        return failed(f"{case.root} is no folder", "give the site's folder, or make it with mumc-site init")
    config = case.config
    return passed(f"{config.name}, unit {config.unit}, device {config.device}, {config.precision}")


def state(case: Case) -> Finding:
    """Whether the client can keep what it must find again."""
    folder = case.root / "state"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return failed(
            f"{folder} cannot be written: {error.strerror}",
            "let the user who runs mumc-site own the folder, on a disk that is not mounted read-only",
        )
    return passed("can be written")


def log(case: Case) -> Finding:
    """Whether the log of what came and left is as it was written, and its receipts add up."""
    if not site_log_file(case.root).path.exists():
        return passed("none yet: no order has come")
    found = check_site_log(case.root)
    if not found.whole:
        return failed("; ".join(f"the log is {gap}" for gap in found.breaks), found.breaks[0].remedy)
    return passed(f"{found.lines} lines, chained and signed, the last of {found.last}", numbers={"lines": found.lines})


def ledger(case: Case) -> Finding:
    """Whether the ledger of the privacy budget is as it was written, and the officer's policy the one approved."""
    opened = Ledger.open(case.root)
    if read_site_config(case.root).policy.privacy is None:
        if opened.head.count:
            return warned(
                f"{opened.head.count} rows, and site.yaml has no privacy policy",
                "let the privacy officer approve one: mumc-privacy approve",
            )
        return passed("none, as there is no privacy policy: runs without differential privacy only")
    policy = opened.policy()
    return passed(
        f"{opened.head.count} rows, chained and signed; policy of {policy.approved[:10]}, for each {policy.unit}",
        numbers={"rows": opened.head.count},
    )
