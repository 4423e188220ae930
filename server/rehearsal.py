"""Rehearsals: each enrolled site trains two steps on synthetic data before it is asked for anything real."""

import json
from collections.abc import Callable, Sequence
from time import monotonic

from mumc_model.data.files import write_atomically
from server.control import Control
from server.errors import ServerError
from server.home import Home
from server.roster import EnrolledSite, SiteRegister
from server.seal import read_nodes
from server.submit import prepare, submit

EVERY_S = 10.0
"""How often new sites are looked for, as long as one has not rehearsed."""
WAIT_S = 120.0
TELL_AFTER = 3
"""So many looks in vain before it is told why nobody rehearses."""


def overrides_for(sites: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """The run that lets these sites rehearse; what is given, as `model=base`, says what with."""
    return [
        *given,
        "federation.rounds=0",
        "federation.final=rehearse",
        f"federation.sites={len(sites)}",
        "federation.min_sites=1",
        f"federation.wait_s={WAIT_S}",
        f"federation.only=[{','.join(sites)}]",
    ]


class Rehearsals:
    """Lets each site rehearse once under its present keys, as soon as it is online for the first time.

    Args:
        home: The federation's folder. `state/rehearsed.json` notes who was asked, under which key.
        control: Its SuperLink.
        say: Where lines for a person go.
    """

    def __init__(self, home: Home, control: Control, say: Callable[[str], None] = print) -> None:
        self._home, self._control, self._say = home, control, say
        self._file = home.state / "rehearsed.json"
        self._next = 0.0
        self._vain = 0

    def step(self) -> None:
        """Ask those that are new and online; looks only every few seconds, and only while somebody is new."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + EVERY_S
        if not (new := self._new()):
            return
        try:
            online = {node.node_id for node in self._control.nodes() if node.status == "online"}
            nodes = read_nodes(self._home)
            if here := [site for site in new if nodes.get(site.name) in online]:
                self._ask(here)
        except (ServerError, ValueError) as error:
            self._vain += 1
            # At first the SuperLink may still be starting; what stays is told once.
            if self._vain == TELL_AFTER:
                self._say(f"no rehearsal: {error}")
        else:
            self._vain = 0

    def _new(self) -> list[EnrolledSite]:
        noted = self._noted()
        return [site for site in SiteRegister.read(self._home).active if noted.get(site.name) != site.signing_key]

    def _ask(self, sites: Sequence[EnrolledSite]) -> None:
        names = [site.name for site in sites]
        config = prepare(self._home, overrides_for(names), name="rehearsal")
        submit(self._control, config)
        noted = self._noted() | {site.name: site.signing_key for site in sites}
        write_atomically(self._file, json.dumps(noted, indent=1, sort_keys=True).encode())
        self._say(f"{', '.join(names)} rehearse: {config.run_id}")

    def _noted(self) -> dict[str, str]:
        return dict(json.loads(self._file.read_text(encoding="utf-8"))) if self._file.is_file() else {}
