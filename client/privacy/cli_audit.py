"""The part of `mumc-privacy` that measures what leaks: audit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from client.privacy.membership import MembershipResult

app = typer.Typer(rich_markup_mode=None)

GradSample = Literal["hooks", "opacus", "loop"]
Audited = Literal["pretrain", "finetune", "metrics"]


@app.command()
def audit(
    trainer: Annotated[
        Audited, typer.Option(help="Whose steps: private pre-training's, fine-tuning's, or the release of metrics.")
    ] = "pretrain",
    grad_sample: Annotated[
        GradSample, typer.Option(help="Which way of clipping patients; metrics clip none.")
    ] = "hooks",
    canaries: Annotated[
        int | None, typer.Option(help="Made-up patients; by default as many as take seconds.", show_default=False)
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a pre-trained model to attack as well.")] = None,
    site: Annotated[Path | None, typer.Option(help="Site folder whose patients it was trained on.")] = None,
    non_members: Annotated[Path | None, typer.Option(help="Site folder of patients it never saw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers instead of a table.")] = False,
) -> None:
    """Measure the installed mechanism with made-up patients, beside the claimed epsilon. Ends with 1 if it fails.

    With --model, --site and --non-members, also try to tell who was in a model's training data.
    """
    given = [one for one in (model, site, non_members) if one is not None]
    if len(given) not in (0, 3):
        raise typer.BadParameter("an attack on a model needs all of --model, --site and --non-members")
    from client.privacy.audit import audit as run

    with _progress("canaries", as_json) as on_progress:
        result = run(trainer=trainer, grad_sample=grad_sample, canaries=canaries, on_progress=on_progress)
    attacked = _attack(*given, quiet=as_json) if given else None
    if as_json:
        import json

        found = result.to_dict() | ({"membership": attacked.to_dict()} if attacked else {})
        typer.echo(json.dumps(found, indent=1, allow_nan=False))
    else:
        from rich.console import Console

        from client.privacy.audit_text import to_console

        to_console(result, Console())
        if attacked:
            typer.echo(str(attacked))
    if not result.passed:
        raise typer.Exit(1)


def _attack(model: Path, site: Path, non_members: Path, *, quiet: bool) -> "MembershipResult":
    from client.privacy.membership import attack

    with _progress("patients", quiet) as on_progress:
        return attack(model, site, non_members=non_members, on_progress=on_progress)


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Callable[[int, int], Any]]:
    """A bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
