"""The privacy report as one HTML page that needs nothing else, for a reader who is no mathematician."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from client.privacy.report_cells import up
from mumc_model.page import figure, section, style, table_of, whole

Values = Mapping[str, Any]

SECTIONS = {
    "promise": "What is promised",
    "budget": "The budget",
    "words": "What epsilon means here",
    "mechanism": "How a step is made private",
    "audit": "What was measured",
    "ledger": "What vouches for the numbers",
}
INTRO = {
    "budget": "Epsilon bounds how much anything that left the site can say about any one of them: 0 says nothing, and "
    "every further round adds. Where it would pass the cap, the site refuses the round.",
    "words": "Whatever an attacker computes, these are the most that the epsilon allows; real attacks find far less.",
    "audit": "The program that runs at this site was tried with made-up patients. What was measured may not be above "
    "what is claimed for the same trial; it is a check of one part of the program, not of the budget above.",
    "ledger": "Every number above is computed from a signed chain of rows that was written before each round began.",
}
CAPTIONS = {
    "rounds": "Life-time epsilon after each charge, by RDP with a filter, at the approved delta. The first "
    "one costs most: it pays for stating anything at all at so small a delta. Hollow: reserved and not yet reconciled; "
    "it counts in full.",
    "delta": "The same work stated at other deltas. A smaller chance of failure costs a larger epsilon.",
}
CHARGE_HEADS = ("run", "round", "for", "day", "q", "sigma", "C", "batch", "steps", "state", "epsilon")
RUN_HEADS = ("run", "charges", "steps", "epsilon by RDP", "by PLD, had it been fixed beforehand")

LIGHT = {"pld": "#0b62b4", "rdp": "#b86e00", "cap": "#a83232"}
DARK = {"pld": "#5aa9f0", "rdp": "#f0a132", "cap": "#f08080"}
RULES = """h2 { font-size: 1.15rem; margin: 2.75rem 0 .6rem; } p { margin: .5rem 0; max-width: 46rem; }
.bar { height: .6rem; border-radius: .3rem; background: var(--rule); overflow: hidden; margin: .2rem 0 .8rem; }
.bar i { display: block; height: 100%; background: var(--rdp); }
table { font-size: .88rem; } th, td { padding: .42rem .9rem .42rem 0; }
.facts tbody th { width: 15rem; } .facts td { overflow-wrap: anywhere; } .wide th, .wide td { white-space: nowrap; }
figure { margin: 1rem 0 2rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } tr, figure { break-inside: avoid; } }
"""


def to_html(report: Values, plots: Mapping[str, str]) -> str:
    """The whole page; `plots` are SVG elements by name, as `draw_plots` makes them."""
    body = [
        _header(report),
        _facts(report, "promise"),
        _facts(report, "budget", _figure("rounds", plots)),
        _facts(report, "words"),
        section("Who sees what", _pairs(report["trust"])),
        section("What is covered", *(f"<p>{escape(text)}.</p>" for text in report["covered"])),
        section("What is not covered", _pairs(report["not_covered"])),
        _facts(report, "mechanism"),
        section("Every charge", _charges(report)),
        section("By run", _runs(report)) if report["runs"] else "",
        section("Epsilon over delta", _figure("delta", plots), _deltas(report)) if report["over_delta"] else "",
        _facts(report, "audit"),
        _facts(report, "ledger"),
        section("Signatures", _signatures(report)),
    ]
    return whole(f"Privacy report of {report['site']}", style(58, RULES, LIGHT, DARK), *body)


def findings(report: Values) -> list[str]:
    """The report in a few sentences."""
    cells = {cell["id"]: cell for cell in report["cells"]}
    if report["problem"]:
        return [
            f"No budget is in force: {report['problem']}.",
            "So nothing is promised for what this site sends from now on: what stands below describes charged runs.",
        ]
    spent, unit = cells["budget.spent_and_reserved"]["value"], cells["promise.unit"]["value"]
    if not report["charges"]:
        first = f"Nothing was charged yet: no training under this budget has touched any {unit}."
    else:
        first = f"Epsilon {up(spent)} of {cells['budget.cap']['text']} is spent or reserved for each {unit}."
    told = [first, f"{cells['words.true_positive_rate']['text']}; seeing nothing, it would find 1.0 %."]
    if report["charges"]:
        told.append(f"Where it stops: {cells['budget.rounds_left']['text']}.")
    if runs := cells["ledger.uncharged"]["value"]:
        told.append(f"Not covered: runs without differential privacy at this site ({len(runs):,}).")
    if "audit.pass" in cells:
        told.append(f"The audit of {cells['audit.trainer']['text']}: {cells['audit.pass']['text']}.")
    return told


def _header(report: Values) -> str:
    told = "".join(f"<li>{escape(line)}</li>" for line in findings(report))
    return (
        f"<header><h1>Privacy report of {escape(report['site'])}</h1>"
        f'<p class="faint">{escape(report["day"])} · report {escape(report["id"])} · an attestation of the budget of '
        "differential privacy at one site; it holds public numbers only</p>"
        f'<div class="findings">{_bar(report)}<ul>{told}</ul></div></header>\n'
    )


def _bar(report: Values) -> str:
    values = {cell["id"]: cell["value"] for cell in report["cells"]}
    if "budget.cap" not in values:
        return ""
    share = min(100.0, 100 * values["budget.spent_and_reserved"] / values["budget.cap"])
    return (
        f'<div class="bar" role="img" aria-label="share of the budget used"><i style="width: {share:.1f}%"></i></div>'
    )


def _facts(report: Values, part: str, *more: str) -> str:
    cells = [cell for cell in report["cells"] if cell["id"].startswith(part + ".")]
    if not cells:
        return ""
    rows = [_row(cell["label"], f'<td data-cell="{escape(cell["id"])}">{escape(cell["text"])}</td>') for cell in cells]
    intro = f"<p>{escape(INTRO[part])}</p>" if part in INTRO else ""
    return section(SECTIONS[part], intro, table_of(None, rows, kind="facts"), *more)


def _charges(report: Values) -> str:
    if not report["charges"]:
        return "<p>Nothing was charged: the ledger holds no training on this site's data.</p>"
    rows = [_cells(_charge(charge)) for charge in report["charges"]]
    note = (
        '<p class="faint">q: probability with which a unit enters a step; sigma: noise over the clipping norm C; '
        "batch: units a step takes in expectation. A charge is reserved whole before its first step, and lowered to "
        "what was done. Epsilon is of all charges up to this one. PLD and RDP by run stand below.</p>"
    )
    return note + table_of(CHARGE_HEADS, rows, kind="wide")


def _charge(charge: Values) -> list[str]:
    done = charge["steps_done"]
    steps = f"{charge['steps_reserved']:,}" if done is None else f"{done:,} of {charge['steps_reserved']:,}"
    return [
        charge["run"],
        f"{charge['round']}.{charge['attempt']}",
        charge["purpose"],
        charge["day"],
        f"{charge['sample_rate']:.4g}",
        f"{charge['noise_multiplier']:.4g}",
        f"{charge['clipping_norm']:g}",
        f"{charge['expected_batch']:g}",
        steps,
        "reserved" if done is None else "spent",
        "-" if charge["epsilon"] is None else up(charge["epsilon"]),
    ]


def _runs(report: Values) -> str:
    rows = [
        _cells([run["run"], str(run["charges"]), f"{run['steps']:,}", up(run["rdp"]), up(run["pld"])])
        for run in report["runs"]
    ]
    return '<p class="faint">Each run by itself; epsilons of runs do not simply add up.</p>' + table_of(RUN_HEADS, rows)


def _deltas(report: Values) -> str:
    rows = [_cells([f"{row['delta']:g}", up(row["rdp"]), up(row["pld"])]) for row in report["over_delta"]]
    return table_of(("delta", "epsilon by RDP", "by PLD, had it been fixed beforehand"), rows)


def _signatures(report: Values) -> str:
    rows = [
        _cells([signer["who"], signer["fingerprint"], signer["key"]]).replace("<td>", '<td class="key">')
        for signer in report["signers"]
    ]
    return (
        "<p>This page and its values are signed together in <code>privacy-report.sig.json</code>. Verify all three on "
        "any machine with <code>mumc-privacy verify-report FOLDER</code>, and compare the fingerprints by telephone: a "
        "signature says that this key signed, not whose it is.</p>"
        + table_of(("signed by", "fingerprint", "key"), rows)
    )


def _pairs(pairs: Sequence[Sequence[str]]) -> str:
    return table_of(None, [_row(head, f"<td>{escape(text)}</td>") for head, text in pairs], kind="facts")


def _cells(cells: Sequence[str]) -> str:
    return _row(cells[0], "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:]))


def _row(head: str, cells: str) -> str:
    return f'<tr><th scope="row">{escape(head)}</th>{cells}</tr>'


def _figure(name: str, plots: Mapping[str, str]) -> str:
    return figure(plots[name], CAPTIONS[name]) if name in plots else ""
