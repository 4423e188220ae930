"""A federation of three hospitals, set up by its people's commands, and its programs as they come and go."""

import json

from mumc_model.data.phantom import PhantomConfig, write_hospitals
from protocol.flower import free_port
from tests.e2e.deployment import Started, call, lines_of, wait_for

SITES = ("hospital-1", "hospital-2", "hospital-3")
STRANGER = "hospital-4"
"""Has a site, and is not enrolled."""


class Federation:
    """Folders and processes; `started` holds what is at work, by name."""

    def __init__(self, place):
        self.place, self.hub = place, place / "hub"
        self.folders = dict(zip((*SITES, STRANGER), _hospitals(place / "sites"), strict=True))
        self.started = {}
        _found(self.hub, self.folders)

    def start_server(self):
        self.started["server"] = Started(self.place / "server.log", "mumc-server", "start", self.hub, "--supervise")
        wait_for("registered sites", lambda: self.started["server"].text.count("may connect") == len(SITES))

    def connect(self, site):
        log = self.place / f"{site}.log"
        self.started[site] = Started(log, "mumc-site", "start", self.folders[site], "--supervise")

    def connect_all(self):
        """Every site is at work, and has rehearsed."""
        for site in SITES:
            self.connect(site)
        wait_for("rehearsals", lambda: rehearsed(self.hub) == set(SITES), seconds=300)

    def stop(self):
        """End all of it as systemd does; exit codes by name."""
        return {name: one.stop() for name, one in reversed(self.started.items())}

    def crash(self):
        for one in self.started.values():
            if one.process.poll() is None:
                one.crash()

    def run(self, *overrides):
        """A run that somebody follows at a terminal."""
        return Started(self.place / "run.log", "mumc-server", "run", self.hub, *overrides)

    def status(self):
        return json.loads(call("mumc-server", "status", self.hub, "--json"))


def say(text):
    print(f"\n-- {text}", flush=True)


def _hospitals(place):
    counts = {"images": 24, "train_questions": 24, "val_questions": 10, "test_questions": 12}
    return write_hospitals(PhantomConfig(hospitals=4, image_size=64, **counts), place, 0)


def _found(hub, folders):
    """Make the federation, and enrol three of the four."""
    say("the operator makes a federation, the engineers their sites, three join")
    port = free_port()
    call("mumc-server", "init", hub, "--name", "lung", "--address", f"127.0.0.1:{port}", "--health-port", free_port())
    settings = hub / "federation.yaml"
    settings.write_text(settings.read_text().replace("colluding: 1", "colluding: 0"))
    for folder in folders.values():
        call("mumc-site", "init", folder, "--units", 30)
        limits = folder / "site.yaml"
        limits.write_text(limits.read_text().replace("colluding: 1", "colluding: 0"))
        call("mumc-site", "card", folder)
    for site in SITES:
        call("mumc-server", "enroll", hub, folders[site] / f"enrolment-{site}.json", "--yes")
    for site in SITES:
        call("mumc-site", "join", folders[site], hub / "sites" / f"{site}.join.json", "--yes")


def rehearsed(hub):
    """The sites that have rehearsed to the end."""
    results = [json.loads(path.read_text()) for path in hub.glob("runs/rehearsal-*/result.json")]
    return {site for result in results for site in result["vqa"]["sites"]}


def trains(folder, run, round):
    """Whether a site has the order to train in this round."""
    return any(
        line["kind"] == "order" and (line["run"], line["stage"], line["round"]) == (run, "train.pretrain", round)
        for line in lines_of(folder / "state" / "log.jsonl")
    )
