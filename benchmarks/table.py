"""The table of all figures that the README and docs/performance.md quote: each benchmark, briefly, in its own process.

All of them take less than 15 minutes on two quiet cores; `benchmarks/quoted/figures.py` says with which arguments they
run, what is read of their JSON and what is aimed at. What they print is kept as outputs/bench/NAME.json, the table as
outputs/bench/table.json. A benchmark that fails is a line of the table, and the exit status is 1 then; an aim that is
missed is no failure.

    python benchmarks/table.py [--json] [--only step,merge] [--limit 600] [--markdown PATH] [--kept]
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from quoted.figures import RUNS, Figure

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).resolve().parent
OUT = ROOT / "outputs" / "bench"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
HEAD = ("what is measured", "figure", "aim", "met", "benchmark, seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument(
        "--only", type=names, default=list(RUNS), help=f"some of {', '.join(RUNS)}, with commas between"
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a benchmark is ended")
    parser.add_argument("--markdown", type=Path, help=f"a page that has the table between '{BEGIN}' and '{END}'")
    parser.add_argument("--kept", action="store_true", help="run nothing, show the table of the last time")
    asked = parser.parse_args()
    if asked.markdown:
        between(asked.markdown.read_text(encoding="utf-8"), "")
    kept = OUT / "table.json"
    with ended_from_outside():
        report = json.loads(kept.read_text(encoding="utf-8")) if asked.kept else run_all(asked.only, asked.limit)
    if not asked.kept:
        kept.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if asked.markdown:
        page = between(asked.markdown.read_text(encoding="utf-8"), markdown(report))
        asked.markdown.write_text(page, encoding="utf-8")
    print(json.dumps(report) if asked.json else text(report))
    sys.exit(any(row["failed"] for row in report["rows"]))


def names(given: str) -> list[str]:
    """The benchmarks that are named."""
    found = given.split(",")
    if unknown := [name for name in found if name not in RUNS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(RUNS)}")
    return found


def run_all(chosen: Sequence[str], limit_s: float) -> dict[str, Any]:
    """The table's rows, and what to know of the machine."""
    OUT.mkdir(parents=True, exist_ok=True)
    load, started, rows = os.getloadavg()[0], time.perf_counter(), []
    console = Console(stderr=True)
    for place, name in enumerate(chosen, start=1):
        since = time.perf_counter()
        label = f"{place}/{len(chosen)} {name}"
        console.print(f"{label}, {since - started:.0f} s so far", highlight=False)
        found: dict[str, Any] | str
        with console.status(f"{label} {' '.join(RUNS[name].arguments)}"):
            found = run(name, RUNS[name].arguments, limit_s)
        rows += rows_of(name, found, time.perf_counter() - since)
        if rows[-1]["failed"]:
            console.print(f"{label} failed: {rows[-1]['shown']}", highlight=False, markup=False)
    return {
        "benchmark": "table",
        "machine": machine(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "seconds": round(time.perf_counter() - started),
        "rows": rows,
    }


def run(name: str, arguments: Sequence[str], limit_s: float) -> dict[str, Any] | str:
    """What the script found, or why it did not; its words stay in outputs/bench/NAME.log."""
    log, out, kept = (OUT / f"{name}.{suffix}" for suffix in ("log", "out", "json"))
    kept.unlink(missing_ok=True)
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--json", *arguments]
    with log.open("wb") as words, out.open("wb") as found:
        # In a session of its own, so that what a script has started ends with it.
        process = subprocess.Popen(command, stdout=found, stderr=words, cwd=ROOT, start_new_session=True)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"it took longer than {limit_s:g} s"
        finally:
            end(process)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        return f"exit status {process.returncode}; {last[:160] or 'it said nothing'}"
    try:
        report: dict[str, Any] = json.loads(out.read_bytes())
    except ValueError:
        return f"it printed no JSON but {out.read_bytes()[:80]!r}"
    out.rename(kept)
    return report


@contextmanager
def ended_from_outside() -> Iterator[None]:
    """What runs is ended by SIGTERM too, as it is by an interrupt."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a script's session, once the script is over, too late or in the way."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows_of(name: str, found: Mapping[str, Any] | str, took_s: float) -> list[dict[str, Any]]:
    """The rows of one benchmark; of one that failed, or whose JSON is not as it was, one that says so."""
    source = {"benchmark": name, "took_s": round(took_s, 1), "failed": False}
    if not isinstance(found, str):
        try:
            return [{**source, **as_row(figure)} for figure in RUNS[name].read(found)]
        except (KeyError, TypeError, ValueError) as error:
            found = f"its JSON is not as expected: {type(error).__name__} {error}"
    return [{**source, "failed": True, "what": name, "shown": found, "aim": "", "met": None}]


def as_row(figure: Figure) -> dict[str, Any]:
    return {**asdict(figure), "shown": figure.shown, "aim": figure.aim, "met": figure.met}


def machine() -> str:
    """Cores, processor and versions."""
    known = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", known.read_text() if known.is_file() else "", re.MULTILINE)
    model = found[1] if found else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, torch {version('torch')}"


def cells(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table as text, without its head; a benchmark is named with its first row."""
    rows, last = [], None
    for row in report["rows"]:
        met = "failed" if row["failed"] else {True: "yes", False: "no", None: ""}[row["met"]]
        named = f"{row['benchmark']}, {row['took_s']:.0f}" if row["benchmark"] != last else ""
        rows.append((row["what"], row["shown"], row["aim"], met, named))
        last = row["benchmark"]
    return rows


def said(report: Mapping[str, Any]) -> str:
    """What stands beside the table."""
    return (
        f"{report['machine']}; load {report['load_before']:.1f} before and {report['load_after']:.1f} after; "
        f"{report['seconds']} s in all."
    )


def text(report: Mapping[str, Any]) -> str:
    """The table in columns."""
    rows = [HEAD, *cells(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", said(report)])


def markdown(report: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells(report)]
    return "\n".join(
        [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *(f"| {row} |" for row in rows), "", said(report)]
    )


def between(page: str, table: str) -> str:
    """The page with the table between the two comments."""
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(
            f"the page has no place for the table; write {BEGIN} and, on a later line, {END} where it belongs"
        )
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    main()
