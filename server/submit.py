"""A run from the operator's command line to the SuperLink: resolved here, so that a mistake is seen at once."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from configs.compose import compose
from configs.loader import ConfigurationError, dump, load
from protocol.bundle import installed_bundle
from server.config import RunConfig
from server.control import Control, FlowerRun
from server.errors import ControlError, OutputError
from server.home import Home
from server.output import CONFIG, REPORT, RESULT, own_folder, read_config
from server.roster import SiteRegister
from server.sinks import check_sinks

OUTPUT = "output.log"
"""In the run's folder: everything that its program prints, Flower's lines too."""
_OURS = re.compile(r"(round +\d+ \||sites \d+/\d+ )")
"""Lines of `RoundRecord`, and of `wait_for_nodes`."""
_FLOWERS_WORDS = "ServerApp failed with exception: "
_SITES = "federation.sites"
DIES_S = 150.0
"""So long the SuperLink may take to notice that a run's program has died."""
_LOOK_S = 0.5


def prepare(home: Home, overrides: Sequence[str], name: str = "") -> RunConfig:
    """The run that these overrides give, with a name and a folder of its own; all enrolled sites are expected.

    Args:
        home: The federation's folder.
        overrides: As `experiment=plain federation.rounds=3`.
        name: Beginning of the run's name; by default that of its experiment.

    Raises:
        ConfigurationError: an override does not fit, or no site is enrolled.
        OutputError: its folder holds another run.
    """
    enrolled = len(SiteRegister.read(home).active)
    if not enrolled:
        raise ConfigurationError("no site is enrolled yet, so there is nobody to train; see mumc-server enroll --help")
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    sites = [] if _SITES in given else [f"{_SITES}={enrolled}"]
    config = load(RunConfig, compose("run", [*sites, *overrides]))
    if config.federation.sites > enrolled:
        raise ConfigurationError(
            f"federation.sites is {config.federation.sites}, and {enrolled} sites are enrolled; enrol more, or expect "
            "fewer"
        )
    check_sinks(config.sinks)
    run_id = config.run_id or f"{name or _experiment(overrides)}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(config.output_dir) if "output_dir" in given else home.runs / run_id
    return replace(config, run_id=run_id, output_dir=str(own_folder(folder.resolve())))


def unfinished(home: Home, overrides: Sequence[str]) -> RunConfig:
    """The run to go on with: the one that `run_id=NAME` names, else the newest that did not finish.

    Raises:
        ConfigurationError: another setting is given; a run goes on with those that it began with.
        OutputError: there is no such run, or it has finished.
    """
    given = dict(override.partition("=")[::2] for override in overrides)
    if others := sorted(given.keys() - {"run_id"}):
        raise ConfigurationError(
            f"{', '.join(others)} cannot change: a run goes on with the settings that it began with; give run_id=NAME "
            "at most"
        )
    broken = [path.parent for path in home.runs.glob(f"*/{CONFIG}") if _broken_off(path.parent)]
    newest = max(broken, key=lambda folder: (folder / CONFIG).stat().st_mtime, default=None)
    folder = home.runs / given["run_id"] if "run_id" in given else newest
    if folder is None:
        raise OutputError(f"every run in {home.runs} has finished, so there is none to go on with")
    return read_config(own_folder(folder, resume=True))


def _broken_off(folder: Path) -> bool:
    """Whether a training did not finish: rehearsals come again by themselves, and statistics are named to go on."""
    if (folder / RESULT).exists():
        return False
    try:
        return read_config(folder).federation.final not in ("rehearse", "statistics")
    except OutputError:
        return False


def wait_until_ended(link: Control, config: RunConfig, say: Callable[[str], None]) -> None:
    """Return once the SuperLink has no run of this name at work; it notices after a moment that one has died.

    A SuperLink that does not answer is waited for too: it may just be starting again.

    Raises:
        ControlError: the run is still at work, or the SuperLink does not come.
    """
    for looks_left in reversed(range(round(DIES_S / _LOOK_S))):
        try:
            if all(run.status.startswith("finished") for run in link.runs() if run.name == config.run_id):
                return
            why = f"{config.run_id} is at work for the SuperLink"
        except ControlError as error:
            why = str(error)
            if not looks_left:
                raise
        if looks_left == round(DIES_S / _LOOK_S) - 1:
            say(f"{why}; waiting at most {DIES_S:.0f} s")
        time.sleep(_LOOK_S)
    raise ControlError(f"{config.run_id} is still at work; look at it with mumc-server status, or end it first")


def submit(link: Control, config: RunConfig, *, resume: bool = False) -> int:
    """Flower's id of the run, which has begun, or goes on."""
    return link.submit(installed_bundle(), {"run-json": json.dumps(dump(config), sort_keys=True)}, resume=resume)


def follow(link: Control, flower_id: int, config: RunConfig, show: Callable[[str], None]) -> FlowerRun:
    """How the run ended; until then the lines that are for a person go to `show`, and all of them to `OUTPUT`."""
    rest = ""
    with (Path(config.output_dir) / OUTPUT).open("a", encoding="utf-8") as file:
        for text in link.logs(flower_id):
            file.write(text)
            file.flush()
            *lines, rest = (rest + text).split("\n")
            for line in filter(_OURS.match, lines):
                show(line)
    # The log may end a moment before the run is marked as ended.
    for _ in range(round(30 / _LOOK_S)):
        found = next((run for run in link.runs() if run.flower_id == flower_id), None)
        if found is not None and found.status.startswith("finished"):
            return found
        time.sleep(_LOOK_S)
    raise ControlError(f"the run's output has ended, and its state is {found.status if found else 'unknown'}")


def why_failed(ended: FlowerRun) -> str:
    """Why a run did not come to its end, in the ServerApp's own words."""
    return ended.details.removeprefix(_FLOWERS_WORDS) or "it gave no reason"


def read_report(config: RunConfig) -> str:
    """The report of a run that has finished, made from its files where it is missing."""
    path = Path(config.output_dir) / REPORT
    if not path.is_file():
        from server.report_page import write_reports

        write_reports(path.parent)
    return path.read_text(encoding="utf-8")


def stop(link: Control, name: str) -> str:
    """Stop the run of this name, or the only one at work; its name.

    Raises:
        ControlError: there is none.
    """
    at_work = [run for run in link.runs() if not run.status.startswith("finished")]
    found = [run for run in at_work if name in ("", run.name)]
    if len(found) != 1:
        names = ", ".join(run.name for run in at_work) or "none"
        raise ControlError(f"{name or 'one run'} is not at work; at work: {names}")
    link.stop(found[0].flower_id)
    return found[0].name


def _experiment(overrides: Sequence[str]) -> str:
    chosen = next((value for key, _, value in (o.partition("=") for o in overrides) if key == "experiment"), "run")
    return re.sub(r"[^A-Za-z0-9-]", "-", chosen)[:40]
