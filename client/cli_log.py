"""The part of `mumc-site` that shows what left: log verify, log show."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from client.log_check import SiteLogSummary

app = typer.Typer(help="Show and verify what was asked of this site and what left it.")

LogArgument = Annotated[Path, typer.Argument(help="Site folder, or a log file.", metavar="DIR")]


@app.command()
def verify(
    folder: LogArgument,
    head: Annotated[
        list[str] | None, typer.Option(help="COUNT:HASH of this log as the server remembers it; repeatable.")
    ] = None,
    key: Annotated[
        str, typer.Option(help="Public signing key, where the folder has none any more (leave-NAME.json names it).")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check every line of the site's log and every receipt in it, and say what left in sum; exit code 1 on a break."""
    from client.log_check import check_site_log
    from protocol.logcheck import parse_head

    found = check_site_log(folder, [parse_head(text) for text in head or []], key)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show_summary(found)
    if not found.whole:
        raise typer.Exit(1)


@app.command()
def show(
    folder: LogArgument,
    last: Annotated[int, typer.Option(help="Only so many of the newest lines; 0 for all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Every line as it stands, for programs.")] = False,
) -> None:
    """Print the site's log, a line each; `verify` says whether it can be believed."""
    from client.log_check import log_at

    entries = log_at(folder).entries()
    for entry in entries[-last:] if last else entries:
        typer.echo(json.dumps(entry, sort_keys=True) if as_json else f"{entry['index'] + 1:5d}  {line_words(entry)}")


def _show_summary(found: "SiteLogSummary") -> None:
    if not found.whole:
        for gap in found.breaks:
            typer.echo(f"{found.file} is {gap}\nremedy: {gap.remedy}")
        return
    _show("log", f"{found.file}, whole: {found.lines:,} lines, {found.first[:16]} to {found.last[:16]}")
    _show(
        "orders",
        f"{found.orders} (runs: {len(found.runs)}, rounds: {found.rounds}); refused: {found.refusals}, "
        f"turned away: {found.turned_away}, without a reply: {found.unanswered}",
    )
    _show("questions", f"{found.questions} were asked here")
    _show("left", f"{found.bytes_of_weights:,} bytes of weights in {found.updates} updates")
    _show("", f"{found.bytes_of_messages:,} bytes of words and numbers in {found.replies + found.turned_away} replies")
    _show("metrics", ", ".join(found.metrics) or "none")
    _show("held back", ", ".join(found.withheld) or "none")
    _show("epsilon", "none told" if found.epsilon_spent is None else f"{found.epsilon_spent:g} told last")
    _show("head", found.head)
    _show("server's", f"{found.server}, as its last order told")


def line_words(entry: dict[str, Any]) -> str:
    """A line of the log in words."""
    kind, when = entry["kind"], entry["time"][:19]
    if kind == "key":
        return f"{when}  new keys sign from here on"
    if kind == "schema":
        return f"{when}  {len(entry['tensors'])} tensors have the form {entry['digest'][:12]}"
    if kind == "turned_away":
        return f"{when}  turned away {entry['stage']}: {entry['code']}: {entry.get('why') or entry['text']}"
    if kind == "question":
        return f"{when}  {_asked(entry)}"
    if kind == "card":
        return f"{when}  {entry['user']} approved the public data card {entry['leaves'][:12]}"
    if kind == "statistics":
        return f"{when}  {entry['run']}: {_summed(entry)}"
    where = f"{when}  {entry['run']} round {entry['round']}.{entry['attempt']} {entry['stage']}"
    if kind == "order":
        return f"{where}  order, {entry['steps']} steps, {entry['bytes']:,} bytes came"
    if entry["answer"] == "refusal":
        return f"{where}  refused: {entry['code']}: {entry['text']}"
    return f"{where}  left: {_left(entry)}"


def _asked(entry: dict[str, Any]) -> str:
    what = f"{entry['user']} asked {entry['question'][:12]} about {entry['image'][:12]}"
    said = {
        "answer": f"answered: {entry['answer']}, {100 * entry['probability']:.1f} %",
        "shortlist": f"short list: {', '.join(entry['shortlist'])}",
        "referral": f"referred: {entry['referral']}",
    }
    return f"{what}; {said[entry['outcome']]}"


def _summed(entry: dict[str, Any]) -> str:
    said = {
        "masked": "the counts go under masks into a sum among {sites}",
        "opened": "this site helps to open the sum over {sites}",
        "told": "statistics came; state/site.log says whether they are kept",
    }
    return said[entry["step"]].format(sites=", ".join(entry.get("sites", [])))


def _left(entry: dict[str, Any]) -> str:
    parts = [f"{entry['bytes']:,} bytes of weights"] if entry["bytes"] else []
    if entry["tensors"]:
        parts.append(" ".join(f"{name}[{group['tensors']}]" for name, group in entry["tensors"].items()))
        parts.append("under masks" if entry["norm"] is None else f"norm {entry['norm']:.4g}")
    parts.append(f"examples {entry['examples']:,}")
    parts += [f"{name} {value:.4g}" for name, value in sorted(entry["metrics"].items())]
    if entry["epsilon_spent"] is not None:
        parts.append(f"epsilon {entry['epsilon_spent']:.3f}")
    if entry["withheld"]:
        parts.append(f"held back {', '.join(entry['withheld'])}")
    return "; ".join(parts)


def _show(name: str, value: str) -> None:
    typer.echo(f"{name:<11}{value}")
