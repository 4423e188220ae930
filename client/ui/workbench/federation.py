"""The Federation tab: what this site's own log says of the rounds, of what left, and of the privacy that it cost."""

from pathlib import Path

from client.board.numbers import bytes_text, chance_text, count_text, epsilon_text, hours_text
from client.board.prices import read_prices
from client.board.site import privacy_of
from client.board.traffic import effort_of
from client.config import SiteConfig, read_site_config
from client.follow import last_connection
from client.log_check import check_site_log
from client.ui.look import alert, heading, paragraph, table
from client.ui.workbench.records import entries_of, open_orders, refusal_rows, round_rows, when
from protocol.errors import LogError, SigningError

UNKNOWN = (
    "What the server is doing now cannot be seen from a site: it answers orders, and is told nothing else. Here stands "
    "what this site itself has written down."
)
HEADS = ("run", "asked for", "came (UTC)", "bytes that came", "answered (UTC)", "what left", "line of the log")


def federation_html(root: Path) -> str:
    """Rounds taken part in, what left and when, refusals, and the privacy spent.

    Raises:
        ProtocolError: the log cannot be read.
    """
    config = read_site_config(root)
    return "".join([paragraph(UNKNOWN), _connection(root), _log(root), _rounds(root), _sum(root, config)])


def _connection(root: Path) -> str:
    found = last_connection(root / "state" / "supernode.log")
    return paragraph(found or "mumc-site start has not been connected here yet.")


def _log(root: Path) -> str:
    try:
        found = check_site_log(root)
    except (LogError, SigningError) as error:
        return paragraph(f"No log can be verified: {error}.")
    if not found.whole:
        return "".join(alert(f"{found.file} is {gap}; {gap.remedy}") for gap in found.breaks)
    return paragraph(
        f"The log is whole: {found.lines:,} lines, the last of {found.last[:19].replace('T', ' ')} UTC; every receipt "
        f"adds up. Head: {found.head[:24]}…",
        "good",
    )


def _rounds(root: Path) -> str:
    entries, parts = entries_of(root), [heading("Orders and what left")]
    rounds, refusals = round_rows(entries), refusal_rows(entries)
    if waiting := open_orders(entries):
        order = waiting[-1]
        parts.append(
            paragraph(
                f"Round {order['round']} of {order['run']}, asked for at {when(order)}, has no reply yet: it is at "
                "work, or a crash ended it."
            )
        )
    if not rounds:
        parts.append(paragraph("This site has had no order yet, and nothing has left it."))
    else:
        parts.append(table("Orders, the newest first", HEADS, rounds))
    parts.append(heading("Refused and turned away"))
    if refusals:
        parts.append(table("Refusals, the newest first", ["time (UTC)", "order", "code", "reason"], refusals))
    else:
        parts.append(paragraph("Nothing was refused or turned away."))
    return "".join(parts)


def _sum(root: Path, config: SiteConfig) -> str:
    effort, privacy = effort_of(root, read_prices(config.board)), privacy_of(root, config)
    taken = [
        ("rounds of training taken part in", count_text(effort.rounds)),
        ("sent to the server", bytes_text(effort.bytes_up)),
        ("received from the server", bytes_text(effort.bytes_down)),
        ("hours of this machine at work on orders", hours_text(effort.hours)),
    ]
    spent = [
        ("protected is each", privacy.unit),
        ("privacy spent (epsilon)", epsilon_text(privacy.epsilon)),
        ("cap that the privacy officer has signed", epsilon_text(privacy.cap)),
        ("chance that the bound fails (delta)", chance_text(privacy.delta)),
        ("runs here without differential privacy", count_text(privacy.uncharged)),
    ]
    if privacy.kind == "unbounded":
        spent = [
            ("differential privacy", "none: no privacy officer has signed a policy here, so nothing bounds epsilon"),
            ("runs here without differential privacy", count_text(privacy.uncharged)),
        ]
    return "".join([heading("In sum"), table("What taking part has moved", [], taken), table("Privacy", [], spent)])
