"""Every check, in the order in which one's failure explains the next."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from client.preflight import card, data, enrolment, folder, machine, network, policy, software, training
from client.preflight.case import Case
from client.preflight.finding import Finding, failed, of_error, skipped
from configs.loader import ConfigurationError
from mumc_model.errors import MumcError
from protocol.errors import ProtocolError
from protocol.messages import one_line


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    look: Callable[[Case], Finding]
    needs: tuple[str, ...] = ()
    """Checks without which this one means nothing."""


CHECKS = (
    Check("python", software.python),
    Check("packages", software.packages),
    Check("settings", folder.settings),
    Check("state", folder.state, ("settings",)),
    Check("data", data.records, ("settings",)),
    Check("duplicates", data.duplicates, ("data",)),
    Check("patients", data.patients, ("data",)),
    Check("card", card.card, ("settings",)),
    Check("ledger", folder.ledger, ("settings",)),
    Check("keys", enrolment.keys, ("settings",)),
    Check("log", folder.log, ("keys",)),
    Check("enrolment", enrolment.enrolment, ("keys",)),
    Check("dns", network.dns, ("enrolment",)),
    Check("tcp", network.tcp, ("dns",)),
    Check("tls", network.tls, ("tcp",)),
    Check("clock", network.clock, ("tcp",)),
    Check("server", network.server, ("tls", "clock")),
    Check("policy", policy.policy, ("data",)),
    Check("device", machine.device, ("settings",)),
    Check("memory", machine.memory, ("settings",)),
    Check("disk", machine.disk, ("settings",)),
    Check("step", training.step, ("data", "ledger", "state", "device")),
)


def examine(case: Case, on_check: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """The finding of every check. `on_check` is told the name of each before it begins."""
    found: dict[str, Finding] = {}
    for check in CHECKS:
        on_check(check.name)
        found[check.name] = dataclasses.replace(_look(check, case, found), name=check.name)
        yield found[check.name]


def _look(check: Check, case: Case, found: dict[str, Finding]) -> Finding:
    """One finding; whatever goes wrong in a check is a failure of that check, never of the others."""
    for need in check.needs:
        if found[need].status in ("fail", "skip"):
            return skipped(found[need].cause or need)
    try:
        return check.look(case)
    except (MumcError, ConfigurationError, ProtocolError) as error:
        return of_error(error)
    except OSError as error:
        return failed(f"the disk or the network refuses: {error.strerror}", "correct who may read it, and check again")
    except Exception as error:
        # The text of an error that nobody foresaw may quote anything, so it stays on the terminal.
        return failed(
            f"the check itself failed with {type(error).__name__}", "tell the developers", here=one_line(str(error))
        )
