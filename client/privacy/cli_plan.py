"""The part of `mumc-privacy` that asks what-if: plan."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from client.privacy.ledger import Ledger

app = typer.Typer(rich_markup_mode=None)


@app.command()
def plan(
    patients: Annotated[int, typer.Option(help="How many the site has: a public, rounded number.")],
    batch: Annotated[int, typer.Option(help="Patients that a step takes on average.")],
    steps: Annotated[int, typer.Option(help="Of one round with --rounds, else of the whole plan.")],
    delta: Annotated[float, typer.Option(help="At which epsilon is stated; at most 1 / (10 patients).")],
    noise: Annotated[float | None, typer.Option(help="Noise multiplier; or give --epsilon.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="What the plan should keep, by PLD; or give --noise.")] = None,
    rounds: Annotated[int, typer.Option(help="Of so many steps each.")] = 1,
    cap: Annotated[
        float | None, typer.Option(help="Largest epsilon of the life-time; by default the policy's.")
    ] = None,
    site: Annotated[Path | None, typer.Option(help="Site folder: its policy and what its ledger has charged.")] = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of past mumc-sim runs, for what privacy cost there; by default outputs."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where the curves are drawn: a name in .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers instead of a table.")] = False,
) -> None:
    """Say what a run would cost in privacy before it is run: epsilon, where it stops, what an attacker could gain."""
    from client.privacy.own_runs import runs_of
    from client.privacy.plan import PlanRequest
    from client.privacy.plan_site import after_charges, at_site, site_values
    from client.privacy.plan_text import to_console
    from client.privacy.planner import plan_for

    request = PlanRequest(
        patients=patients,
        batch=batch,
        steps=steps,
        rounds=rounds,
        noise_multiplier=noise,
        epsilon=epsilon,
        delta=delta,
        cap=cap,
    )
    if plot is not None:
        from client.privacy.plan_plots import check_plot_name

        check_plot_name(plot)
    past = runs_of(runs)
    ledger = None if site is None else _ledger(site)
    found = plan_for(request if ledger is None else after_charges(request, ledger))
    here = None if ledger is None else at_site(found, ledger)
    if plot is not None:
        from client.privacy.plan_plots import write_plots

        write_plots(found, plot)
    if as_json:
        typer.echo(json.dumps(found.to_dict() | past.to_dict(found.epsilon) | site_values(here), indent=1))
    else:
        to_console(found, Console(), past, here)


def _ledger(site: Path) -> "Ledger":
    from client.privacy.ledger import Ledger

    return Ledger.open(site)
