"""The part of `mumc-site` that runs the client: limits, start, rehearse."""

from typing import Annotated

import typer

from client.cli_join import SiteArgument

app = typer.Typer(rich_markup_mode=None)


@app.command()
def start(
    folder: SiteArgument,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start the SuperNode again when it has ended, and say why it ended.")
    ] = False,
) -> None:
    """Follow the orders of the federation's server within this site's limits, until Ctrl-C or SIGTERM."""
    from client.start import client
    from protocol.flower import run_until_stopped

    with client(folder.resolve(), supervise=supervise, say=_say) as started:

        def work() -> None:
            started.runner.step()
            started.follower.step()

        run_until_stopped(started.keeper, work)
    _say("stopped")


@app.command()
def rehearse(
    folder: SiteArgument,
    wait_s: Annotated[int, typer.Option("--wait", help="Seconds to wait for the server's order.")] = 600,
) -> None:
    """Train two steps on synthetic data through the real connection, and show what came and what left.

    The server asks a site by itself when it first connects; later its operator does (mumc-server rehearse).
    """
    from client.rehearsal import Rehearsal
    from client.start import client
    from protocol.flower import run_until_stopped

    with client(folder.resolve(), supervise=False, rehearsal=True, say=_say) as started:
        rehearsal = Rehearsal(started.follower, started.name, wait_s)
        run_until_stopped(started.keeper, started.runner.step, until=rehearsal.over)
    typer.echo(rehearsal.verdict)
    raise typer.Exit(0 if rehearsal.passed else 1)


@app.command()
def limits(
    folder: SiteArgument,
    write: Annotated[
        bool, typer.Option("--write", help="Put the usual limits into a site.yaml that has none.")
    ] = False,
) -> None:
    """Show the limits that every order is held to (policy.runs in site.yaml)."""
    import yaml

    from client.config import read_site_config
    from client.site_settings import write_limits
    from configs.loader import dump

    if write:
        typer.echo(f"written into {write_limits(folder)}; look through them, then: mumc-site start {folder}", err=True)
    runs = read_site_config(folder).policy.runs
    if runs is None:
        typer.echo("none are set, so this site trains nothing; the usual ones: mumc-site limits DIR --write", err=True)
        raise typer.Exit(1)
    typer.echo(yaml.safe_dump({"policy": {"runs": dump(runs)}}, sort_keys=False), nl=False)


def _say(line: str) -> None:
    from datetime import datetime

    typer.echo(f"{datetime.now():%H:%M:%S} {line}", err=True)
