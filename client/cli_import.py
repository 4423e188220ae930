"""The part of `mumc-site` by which data comes in: import, and the quarantine of what a person has to see first."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from client.intake.config import IntakeConfig

app = typer.Typer(rich_markup_mode=None)
quarantine = typer.Typer(help="Images and reports of an import that a person has to see before they are used.")

DICOM = "dicom"
SiteArgument = Annotated[Path, typer.Argument(help="Site folder.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="What the sheet and the list call them.")]
AllOption = Annotated[bool, typer.Option("--all", help="Everything that waits.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for whoever reads the decision later.")]


@app.command("import")
def import_set(
    kind: Annotated[str, typer.Argument(help="dicom, a data set or a table; --list shows them.")] = "",
    source: Annotated[Path, typer.Argument(help="Folder (or zip, or file) to take the data from.")] = Path(),
    destination: Annotated[Path, typer.Argument(help="Site folder to write; made where it is not there.")] = Path(),
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="An option of the importer, as NAME=VALUE; repeatable.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the importers and their options.")] = False,
) -> None:
    """Turn a hospital's DICOM export, a public data set or a table into a site folder.

    What is left out is counted and explained. An import that was interrupted goes on when it is given again.
    """
    console = Console()
    if show_list or not kind:
        _list(console)
    elif kind == DICOM:
        _import_dicom(console, source, destination, _options(option or []))
    else:
        _import_table(console, kind, source, destination, _options(option or []))


@quarantine.command("list")
def show_waiting(
    site: SiteArgument, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Say what waits, and why."""
    from client.intake.quarantine import waiting

    items = waiting(site)
    if as_json:
        typer.echo(json.dumps([{"name": item.name, "reason": item.reason} for item in items], indent=1))
        return
    for item in items:
        typer.echo(f"{item.name}  {item.reason}")
    typer.echo(f"{len(items)} wait; to look at them: mumc-site quarantine sheet {site}" if items else "nothing waits")


@quarantine.command()
def sheet(site: SiteArgument) -> None:
    """Write the contact sheet: a page with every image and report that waits. It shows identities; keep it here."""
    from client.intake.quarantine import write_sheet

    typer.echo(f"contact sheet: {write_sheet(site)}")


@quarantine.command()
def release(
    site: SiteArgument, names: NamesArgument = None, everything: AllOption = False, reason: ReasonOption = ""
) -> None:
    """Let images and reports into the site's records, after a person has seen that they show nobody."""
    _decide(site, names or [], everything, "released", reason)


@quarantine.command()
def reject(
    site: SiteArgument, names: NamesArgument = None, everything: AllOption = False, reason: ReasonOption = ""
) -> None:
    """Delete images that show somebody, and never use reports that name somebody."""
    _decide(site, names or [], everything, "rejected", reason)


def _decide(site: Path, names: list[str], everything: bool, verdict: Any, reason: str) -> None:
    from client.intake.quarantine import decide, waiting

    if everything == bool(names):
        raise typer.BadParameter("name what is meant, or give --all")
    chosen = [item.name for item in waiting(site)] if everything else names
    captions = decide(site, chosen, verdict, reason=reason)
    typer.echo(f"{verdict}: {len(chosen)}; the site has {captions} captioned images of its archive now")


def _list(console: Console) -> None:
    from mumc_model.data.importers import IMPORTERS

    said = {DICOM: "A hospital's export, de-identified. Options: `intake` in docs/intake.md."}
    said |= {name: (importer.__doc__ or "").strip().splitlines()[0] for name, importer in IMPORTERS.items()}
    for name, line in sorted(said.items()):
        console.print(f"{name:<14}{line}", highlight=False)


def _import_table(console: Console, kind: str, source: Path, destination: Path, options: dict[str, str]) -> None:
    from mumc_model.data.importers import IMPORTERS

    if kind not in IMPORTERS:
        from configs.loader import ConfigurationError, nearest

        raise ConfigurationError(f"no importer is called '{kind}'; {nearest(kind, [DICOM, *IMPORTERS])}")
    with _progress(kind, console) as progress:
        task = progress.add_task(kind, total=None)
        summary = IMPORTERS[kind](
            source,
            destination,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            **options,
        )
    console.print(
        f"{summary.images} images, {summary.captions} captions, {summary.questions} questions in {destination}",
        highlight=False,
    )
    _show_left_out(console, dict(summary.left_out))


def _import_dicom(console: Console, source: Path, destination: Path, options: dict[str, str]) -> None:
    from client.errors import SiteError

    try:
        from client.intake.run import import_dicom
    except ModuleNotFoundError as error:
        raise SiteError(
            f"reading DICOM needs {error.name}, which is not installed; run: pip install 'fedmumc[dicom]'"
        ) from None
    settings = _settings(destination, options)
    with _progress(DICOM, console) as progress:
        task = progress.add_task(DICOM, total=None)
        found = import_dicom(
            source,
            destination,
            settings,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(
        f"{found.files} files, {found.new} of them new; {found.images} images, {found.captions} with a caption, in "
        f"{destination}",
        highlight=False,
        soft_wrap=True,
    )
    _show_left_out(console, found.left_out)
    if found.waiting:
        console.print(
            f"{found.waiting} wait for a person: mumc-site quarantine sheet {destination}",
            highlight=False,
            soft_wrap=True,
        )


def _settings(site: Path, options: dict[str, str]) -> "IntakeConfig":
    """The site's own settings, with the options of the command line over them."""
    import yaml

    from client.config import read_site_config
    from client.intake.config import IntakeConfig
    from configs.loader import load

    own = dict(read_site_config(site).intake or {}) if (site / "site.yaml").is_file() else {}
    given = {name: yaml.safe_load(text) if name != "window" else text for name, text in options.items()}
    return load(IntakeConfig, own | given, "intake")


def _show_left_out(console: Console, left_out: dict[str, int]) -> None:
    for reason, count in sorted(left_out.items()):
        console.print(f"left out {count}: {reason}", highlight=False)


def _progress(name: str, console: Console) -> Progress:
    return Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)


def _options(pairs: list[str]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in pairs)
