"""`mumc-sim`: federations on one machine, for the researcher."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.loader import ConfigurationError, load

app = typer.Typer(
    help="Try federations of hospitals on this machine: for researchers. Without a command it runs the demo.",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def demo(context: typer.Context) -> None:
    """Run the demo when no command is given."""
    if context.invoked_subcommand is None:
        _run_all([[]])


@app.command()
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides: experiment=NAME, seeds=[1,2,3], model=tiny, key=value ..."),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Run every combination of comma-separated values.")
    ] = False,
) -> None:
    """Run a simulation and write its report.

    Experiments: demo, alike (the null setting), ablation (what each part of the objective is worth), shift (a new
    hospital with a modality nobody trained on, and few examples), privacy (what differential privacy costs), codec and
    adapters (fewer bytes), real and slake (public data under data_root), hundred (many sites), smoke (seconds).
    """
    from configs.compose import sweep

    overrides = overrides or []
    _run_all(sweep(overrides) if multirun else [overrides])


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished simulation.")] = Path("outputs/latest"),
    site: Annotated[str, typer.Option(help="The board's page of this hospital; of all without it.")] = "",
    prices: Annotated[
        Path | None, typer.Option(help="A YAML file with prices under board:, as in a site.yaml, for the board's page.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the board's page; by default beside the report.")] = None,
) -> None:
    """Show a finished simulation's table again, and write one page for a board: was joining worth it (HTML and PDF)."""
    from client.board.prices import Prices, prices_file
    from client.board.write import write_board
    from simulations.board import of_report
    from simulations.report import read_report
    from simulations.report_table import print_report

    found, console = read_report(folder), Console()
    print_report(found, console)
    facts = of_report(found, prices_file(prices) if prices else Prices(), site)
    html, pdf = write_board(facts, out or (folder if folder.is_dir() else folder.parent))
    console.print(f"for a board: {html} and {pdf.name}", highlight=False, soft_wrap=True)


def _run_all(jobs: list[list[str]]) -> None:
    from configs.compose import compose
    from simulations.config import SimulationConfig
    from simulations.report import write_report
    from simulations.report_table import print_report
    from simulations.run import simulate

    console = Console()
    for overrides in jobs:
        config = load(SimulationConfig, compose("simulation", overrides))
        command = " ".join(["mumc-sim run", *overrides]) if overrides else "mumc-sim"
        study, out = simulate(config, command, console)
        print_report(write_report(study, out), console)
        console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; what was foreseen ends in one line and exit code 2, not in a traceback."""
    from mumc_model.errors import MumcError
    from server.errors import ServerError

    try:
        app()
    except (ConfigurationError, MumcError, ServerError) as error:
        print(f"mumc-sim: {error}", file=sys.stderr)
        sys.exit(2)
