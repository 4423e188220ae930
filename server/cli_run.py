"""The part of `mumc-server` that runs the federation: start, run, stop, status."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli_enrol import HomeArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.config import RunConfig
    from server.control import FlowerRun
    from server.home import Home

app = typer.Typer(rich_markup_mode=None)

LOSSES = 3
"""Exit code of a run that has finished without some of its sites."""
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="As in experiment=plain model=small federation.rounds=3")
]


@app.command()
def start(
    folder: HomeArgument,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start a program that has ended again, and say why it ended.")
    ] = False,
) -> None:
    """Run the SuperLink that sites dial, until Ctrl-C or SIGTERM; prints the commands that it runs."""
    from protocol.flower import Keeper, alone, run_until_stopped
    from server.home import Home
    from server.rehearsal import Rehearsals
    from server.start import Reception, check_certificate, control, programs

    home = Home.open(folder.resolve())
    check_certificate(home)
    with (
        alone(home.root, "mumc-server start"),
        control(home) as link,
        Keeper(programs(home, home.config()), restart=supervise, say=_say) as keeper,
    ):
        reception, rehearsals = Reception(home, link, _say), Rehearsals(home, link, _say)

        def work() -> None:
            reception.step()
            rehearsals.step()

        run_until_stopped(keeper, work)
    _say("stopped")


@app.command()
def run(
    folder: HomeArgument,
    overrides: OverridesArgument = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end of the run.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the newest run that did not finish, or with run_id=NAME."),
    ] = False,
) -> None:
    """Submit a run and follow it; its output folder is DIR/runs/RUN.

    Exit code 0 says that every site was in every round, 3 that the run has finished without some.
    """
    from server.home import Home
    from server.submit import prepare, unfinished

    home = Home.open(folder.resolve())
    config = unfinished(home, overrides or []) if resume else prepare(home, overrides or [])
    tell = _tell_statistics if config.federation.final == "statistics" else _tell_results
    _play(home, config, detach=detach, resume=resume, tell=tell)


@app.command()
def rehearse(
    folder: HomeArgument,
    sites: Annotated[list[str], typer.Argument(help="Names of enrolled sites.", metavar="SITE...")],
    given: Annotated[
        list[str] | None, typer.Option("--with", "-w", help="An override, as model=base; repeatable.")
    ] = None,
) -> None:
    """Let sites train two steps on synthetic data; what they send is checked and dropped.

    A site that connects for the first time is asked by itself.
    """
    from server.home import Home
    from server.rehearsal import overrides_for
    from server.submit import prepare

    home = Home.open(folder.resolve())
    _play(home, prepare(home, overrides_for(sites, given or []), name="rehearsal"), detach=False)


@app.command()
def statistics(
    folder: HomeArgument,
    sites: Annotated[
        list[str] | None, typer.Argument(help="Names of enrolled sites; by default all.", metavar="[SITE...]")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--with", "-w", help="An override, as federation.wait_s=600; repeatable.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end of the run.")] = False,
) -> None:
    """Sum the counts of the sites' data cards under masks: only the sum is opened, and its small counts are withheld.

    What is published lies in DIR/runs/RUN/statistics.json, and goes to every site of the sum. A site takes part only if
    its engineer has agreed, and at most once in 90 days unless sites and counts are the same.
    """
    from server.home import Home
    from server.roster import SiteRegister
    from server.statistics import overrides_for
    from server.submit import prepare

    home = Home.open(folder.resolve())
    names = sites or [site.name for site in SiteRegister.read(home).active]
    config = prepare(home, overrides_for(names, given or []), name="statistics")
    _play(home, config, detach=detach, tell=_tell_statistics)


def _tell_statistics(config: "RunConfig") -> None:
    from pathlib import Path

    from rich.console import Console

    from server.statistics import as_table, caption
    from server.statistics_run import FILE, read_statistics

    folder = Path(config.output_dir)
    if found := read_statistics(folder):
        typer.echo(caption(found))
        Console().print(as_table(found))
        typer.echo(f"{folder / FILE}", err=True)
    _tell_results(config)


def _play(
    home: "Home",
    config: "RunConfig",
    *,
    detach: bool,
    resume: bool = False,
    tell: "Callable[[RunConfig], None] | None" = None,
) -> None:
    from pathlib import Path

    from server.errors import ControlError
    from server.output import RESULT
    from server.start import control
    from server.submit import follow, submit, wait_until_ended

    with control(home) as link:
        if resume:
            wait_until_ended(link, config, partial(typer.echo, err=True))
            if (Path(config.output_dir) / RESULT).exists():
                # Its program had outlived the SuperLink.
                return (tell or _tell_results)(config)
        flower_id = submit(link, config, resume=resume)
        typer.echo(f"run {config.run_id}: results in {config.output_dir}", err=True)
        if detach:
            typer.echo(f"submitted; look at it with: mumc-server status {home.root}", err=True)
            return None
        try:
            ended = follow(link, flower_id, config, typer.echo)
        except KeyboardInterrupt:
            typer.echo(
                f"{config.run_id} goes on; look at it with: mumc-server status {home.root}, end it with: "
                f"mumc-server stop {home.root}",
                err=True,
            )
            raise typer.Exit(130) from None
        except ControlError as error:
            typer.echo(f"mumc-server: {error}, then go on with the run: {_again(home, config)}", err=True)
            raise typer.Exit(2) from None
    _check_completed(home, config, ended)
    return (tell or _tell_results)(config)


def _check_completed(home: "Home", config: "RunConfig", ended: "FlowerRun") -> None:
    from server.submit import OUTPUT, why_failed

    if ended.status == "finished:stopped":
        typer.echo(f"{config.run_id} was stopped; what it has saved is in {config.output_dir}", err=True)
        raise typer.Exit(1)
    if ended.status != "finished:completed":
        typer.echo(
            f"{config.run_id} failed: {why_failed(ended)} (all that it printed: {config.output_dir}/{OUTPUT}); go on "
            f"with it: {_again(home, config)}",
            err=True,
        )
        raise typer.Exit(1)


def _tell_results(config: "RunConfig") -> None:
    from pathlib import Path

    from server.status import losses
    from server.submit import read_report

    typer.echo(read_report(config), nl=False)
    if lost := losses(Path(config.output_dir)):
        typer.echo(f"{config.run_id} has finished, and not every site was in all of it: {lost}", err=True)
        raise typer.Exit(LOSSES)


def _again(home: "Home", config: "RunConfig") -> str:
    return f"mumc-server run {home.root} --resume run_id={config.run_id}"


@app.command()
def stop(
    folder: HomeArgument,
    name: Annotated[str, typer.Argument(help="The run, as status shows it; by default the one at work.")] = "",
) -> None:
    """Stop a run; what it has saved stays."""
    from server.home import Home
    from server.start import control
    from server.submit import stop as stop_run

    with control(Home.open(folder.resolve())) as link:
        typer.echo(f"{stop_run(link, name)} is stopped")


@app.command()
def status(
    folder: HomeArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for another program.")] = False,
) -> None:
    """Show the sites (who is missing, and since when) and the newest runs with their last round."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from server.home import Home
    from server.start import control
    from server.status import look, tables

    home = Home.open(folder.resolve())
    with control(home) as link:
        seen = look(home, link)
    if as_json:
        typer.echo(json.dumps(asdict(seen), indent=1))
        return
    console = Console()
    for table in tables(seen):
        console.print(table, "")


def _say(line: str) -> None:
    from datetime import datetime

    typer.echo(f"{datetime.now():%H:%M:%S} {line}", err=True)
