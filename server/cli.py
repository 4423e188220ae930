"""`mumc-server`: for the operator of the aggregator."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from configs.loader import ConfigurationError, dump, load
from mumc_model.errors import MumcError
from protocol.errors import ProtocolError
from server import cli_datacard, cli_enrol, cli_log, cli_report, cli_run
from server.config import RunConfig
from server.errors import ServerError
from server.journal import RoundRecord, name_lost, read_journal

app = typer.Typer(
    help="For the operator of the aggregator, who starts runs and watches them; hospitals use mumc-site.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


app.registered_commands += cli_enrol.app.registered_commands
app.registered_commands += cli_run.app.registered_commands
app.registered_commands += cli_report.app.registered_commands
app.add_typer(cli_log.app, name="log", no_args_is_help=True)
app.add_typer(cli_datacard.app, name="datacard", no_args_is_help=True)


@app.command()
def config(
    overrides: Annotated[list[str] | None, typer.Argument(help="as in model=base federation.rounds=3")] = None,
) -> None:
    """Print the run that these overrides give, checked, as YAML, and the digest by which a site may pin its recipe."""
    from configs.compose import compose
    from mumc_model.data.tokenizer import vocabulary
    from protocol.signing import payload_hash
    from server.orders import fit_vocabulary

    resolved = load(RunConfig, compose("run", overrides or []))
    recipe = fit_vocabulary(resolved.recipe, len(vocabulary(resolved.vocabulary).vocab))
    typer.echo(f"# policy.runs.recipes: [{payload_hash(dump(recipe))}]")
    typer.echo(yaml.safe_dump(dump(resolved), sort_keys=False), nl=False)


@app.command()
def journal(folder: Annotated[Path, typer.Argument(help="the output folder of a run")]) -> None:
    """Print the journal of a run as a table, one row a round."""
    table = Table(box=None, pad_edge=False)
    for name in ("round", "sites", "examples", "loss", "update norm", "MB up", "MB down", "seconds"):
        table.add_column(name, justify="right")
    records = read_journal(folder / "journal.jsonl")
    for record in records:
        table.add_row(*_row(record))
    Console().print(table)
    for record in records:
        if record.refused:
            typer.echo(f"round {_numbered(record)} lost {name_lost(record.refused, record.reasons)}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="the output folder of a finished run")],
    destination: Annotated[Path, typer.Argument(help="the model folder to write")],
    number: Annotated[int | None, typer.Option("--round", help="of this round, where the run has kept several")] = None,
    last: Annotated[int, typer.Option(help="of so many last rounds, each in a folder DESTINATION/round-N")] = 0,
) -> None:
    """Write a run's merged encoders as a model folder, for hospitals that took part and for those that did not.

    A run keeps the weights of its last federation.keep_weights rounds. Members of an ensemble start from several.
    """
    from server.export import export as export_run
    from server.export import export_last

    if last and number is not None:
        raise typer.BadParameter("--round names one round and --last several; give one of them")
    if last:
        models = " ".join(f"--model {folder}" for folder in export_last(run, destination, last))
        typer.echo(f"encoders of {last} rounds in {destination}; fine-tune with mumc-site finetune SITE {models}")
        return
    count = export_run(run, destination, number)
    typer.echo(f"{count} tensors of merged encoders in {destination}; fine-tune with mumc-site finetune SITE --model")


def main() -> None:
    """Run the command; what was foreseen ends in one line and exit code 2, not in a traceback."""
    try:
        app()
    except (ConfigurationError, MumcError, ProtocolError, ServerError) as error:
        typer.echo(f"mumc-server: {error}", err=True)
        raise SystemExit(2) from error


def _row(record: RoundRecord) -> tuple[str, ...]:
    loss = record.losses.get("total", record.losses.get("loss"))
    return (
        _numbered(record),
        f"{record.sites_merged}/{record.sites_expected}",
        str(record.examples),
        "-" if loss is None else f"{loss:.3f}",
        f"{record.update_norm:.4g}",
        f"{record.bytes_up / 1e6:.2f}",
        f"{record.bytes_down / 1e6:.2f}",
        f"{record.seconds:.1f}",
    )


def _numbered(record: RoundRecord) -> str:
    return f"{record.round}.{record.attempt}" if record.attempt > 1 else str(record.round)
