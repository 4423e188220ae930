"""`mumc-site ask`: one question about one image, and on request where the model looked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mumc_model.reply import Reply

app = typer.Typer(rich_markup_mode=None)

Looking = Literal["relevance", "attention"]


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="A PNG or JPEG file.")],
    question: Annotated[str, typer.Argument(help='For instance "is there a fracture".')],
    site: Annotated[
        Path | None, typer.Option(help="Ask this site's own model; the question stands in the site's log.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model folder of finetune, or encoders with --answer; nothing is logged.")
    ] = None,
    method: Annotated[str, typer.Option(help="rank, generate or zero-shot; by default what the model can do.")] = "",
    answer: Annotated[list[str] | None, typer.Option(help="An answer to weigh; repeatable. Replaces the list.")] = None,
    top: Annotated[int, typer.Option(help="How many answers to show.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...; with --site that of its site.yaml.")] = "auto",
    risk: Annotated[float, typer.Option(help="Of a short list without the right answer.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    where: Annotated[Path | None, typer.Option(help="A PNG file to write: where the model looked.")] = None,
    where_by: Annotated[
        Looking, typer.Option(help="relevance (through every layer) or attention (of one, as the reference does).")
    ] = "relevance",
) -> None:
    """Answer one question about one image, or give a short list, or refer to a human. Research software: no diagnosis.

    With --site the same question is asked of a blank image too, and one line of it stands in the site's log.
    """
    from client.own_model import OWN_MODEL
    from mumc_model.reply_text import show

    _check(site, where, own_list=not (method or answer))
    folder = model or (site / OWN_MODEL if site else Path())
    if site is not None:
        found, blank, values, device = _at_site(site, image, question, model, risk, top)
    else:
        found = _of_folder(folder, image, question, method, answer or [], top, device, risk)
        blank, values = None, found.to_dict()
    if as_json:
        typer.echo(json.dumps(values, indent=1, ensure_ascii=False))
    else:
        show(found, Console(), blank)
    if where is not None:
        _show_where(Console(stderr=as_json), folder, image, question, found.answers[0][0], where, where_by, device)


def _check(site: Path | None, where: Path | None, *, own_list: bool) -> None:
    """Refuse words that do not go together, before any model is opened."""
    if site is not None and not own_list:
        raise typer.BadParameter(
            "with --site the site's own model answers by its own list; leave --method and --answer out"
        )
    if where is not None and where.suffix.lower() != ".png":
        raise typer.BadParameter(f"--where writes a PNG file, and {where.name} is named otherwise; call it OUT.png")


def _at_site(
    site: Path, image: Path, question: str, model: Path | None, risk: float, top: int
) -> tuple["Reply", "Reply", dict[str, Any], str]:
    """The reply, that on a blank image, both for programs, and the device of the site."""
    from client.asking import ask_at
    from client.config import read_site_config

    device = read_site_config(site).device
    found = ask_at(site, image, question, model=model, risk=risk, top=top)
    return found.reply, found.blank, found.to_dict(), device


def _of_folder(
    folder: Path, image: Path, question: str, method: str, answers: list[str], top: int, device: str, risk: float
) -> "Reply":
    from client.vqa.ask import ask_here

    return ask_here(folder, image, question, method=method, answers=answers, top=top, device=device, risk=risk)


def _show_where(
    console: Console, model: Path, image: Path, question: str, answer: str, out: Path, by: Looking, device: str
) -> None:
    """The part of `ask` that draws."""
    from client.where import show_where
    from mumc_model.members import further_members
    from mumc_model.overlay import LABEL

    shown = show_where(model, image, question, out, answer=answer, method=by, device=device)
    words = ", ".join(f"{word} {100 * weight:.0f} %" for word, weight in shown.words)
    console.print(f"{LABEL}: {out}", highlight=False, soft_wrap=True)
    if further_members(model):
        console.print("an ensemble answers here, and this is where its first member looked", soft_wrap=True)
    console.print(f"for {shown.answer!r}, by {by}; weight of the words: {words}", highlight=False, soft_wrap=True)
