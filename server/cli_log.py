"""The part of `mumc-server` that shows what was sent and what came: log verify, log show."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from server.log_check import ServerLogSummary

app = typer.Typer(help="Show and verify what the server sent and what came.")

HomeArgument = Annotated[Path, typer.Argument(help="Federation folder.", metavar="DIR")]


@app.command()
def verify(
    folder: HomeArgument,
    head: Annotated[
        list[str] | None, typer.Option(help="COUNT:HASH of this log as a site remembers it; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check every line of the server's log and what it remembers of the sites'; exit code 1 on a break."""
    from protocol.logcheck import parse_head
    from server.home import Home
    from server.log_check import check_server_log

    found = check_server_log(Home.open(folder), [parse_head(text) for text in head or []])
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show_summary(found)
    if not found.whole:
        raise typer.Exit(1)


@app.command()
def show(
    folder: HomeArgument,
    last: Annotated[int, typer.Option(help="Only so many of the newest lines; 0 for all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Every line as it stands, for programs.")] = False,
) -> None:
    """Print the server's log, a line each; `verify` says whether it can be believed."""
    from server.home import Home
    from server.log import server_log

    entries = server_log(Home.open(folder)).entries()
    for entry in entries[-last:] if last else entries:
        typer.echo(json.dumps(entry, sort_keys=True) if as_json else f"{entry['index'] + 1:5d}  {_words(entry)}")


def _show_summary(found: "ServerLogSummary") -> None:
    if not found.whole:
        for gap in found.breaks:
            typer.echo(f"{found.file} is {gap}\nremedy: {gap.remedy}")
        return
    _show("log", f"{found.file}, whole: {found.lines:,} lines, {found.first[:16]} to {found.last[:16]}")
    _show(
        "orders",
        f"{found.orders} (runs: {len(found.runs)}, rounds: {found.rounds}); without a reply: {found.unanswered}",
    )
    _show("came", f"{found.bytes_came:,} bytes")
    for name, site in found.sites.items():
        _show(name, f"asked {site.asked}, accepted {site.accepted}, refused {site.refused}, {site.bytes_came:,} bytes")
        _show("", f"its log's head {site.head}")
    _show("head", found.head)


def _words(entry: dict[str, Any]) -> str:
    """A line of the log in words."""
    when = entry["time"][:19]
    if entry["kind"] == "revoked":
        return f"{when}  {entry['site']} revoked; should it come back, its log begins anew"
    if entry["kind"] == "datacard":
        which = f", approved {entry['approved'][:19]}, {entry['digest'][:12]}" if entry["what"] == "taken" else ""
        return f"{when}  {entry['site']} data card {entry['what']}{which}"
    where = f"{when}  {entry['site']} {entry['run']} round {entry['round']}.{entry['attempt']} {entry['stage']}"
    if entry["kind"] == "order":
        return f"{where}  asked"
    if entry["what"] == "accepted":
        return f"{where}  accepted: {entry['bytes']:,} bytes, {entry['payload'][:12]}"
    who = "the site refused" if entry["what"] == "refusal" else "not taken"
    return f"{where}  {who}: {entry['code']}: {entry['reason']}"


def _show(name: str, value: str) -> None:
    typer.echo(f"{name:<11}{value}")
