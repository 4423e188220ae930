"""The data cards that sites have handed over: taken in once they are believed, kept beside the register, and let go."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mumc_model.data.files import write_atomically
from protocol.datacard import PublicCard, read
from protocol.errors import ProtocolError
from protocol.hashchain import Entry
from protocol.keyfiles import make_private_folder
from protocol.signing import public_hex
from server.errors import DataCardError
from server.home import Home
from server.log import server_log
from server.roster import EnrolledSite, SiteRegister

KIND, TAKEN, REMOVED = "datacard", "taken", "removed"
"""Of the lines in the server's log, and what they say."""
PAGE = "datacards.html"
AHEAD = timedelta(days=1)
"""A card from further in the future than that would shut out the site's later ones."""
AGAIN = "the site approves its card anew: mumc-site card SITE --approve"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the server has of one enrolled site."""

    site: str
    card: PublicCard | None = None
    fault: str = ""
    """Why the file that is there cannot be believed."""


def take_in(home: Home, card: PublicCard, now: datetime) -> bool:
    """Whether the card is new here, once it is believed, noted in the log and kept in place of the site's earlier one.

    Raises:
        FolderError: no such site is enrolled.
        DataCardError: it was revoked, the card is of another federation, or is not newer than the one that is here.
        MessageError, SignatureError: the site did not sign it.
    """
    register = SiteRegister.read(home)
    site = register.site(card.site)
    _check_sender(home, register, site, card)
    approved = datetime.fromisoformat(card.approved)
    if approved > now + AHEAD:
        raise DataCardError(
            f"the data card of {card.site} was approved on {card.approved}, and here it is {now.isoformat()[:16]}; one "
            f"of the two clocks is wrong: set it, and {AGAIN}"
        )
    earlier = _held(home, register, site).card
    if earlier == card:
        return False
    if earlier and approved <= datetime.fromisoformat(earlier.approved):
        raise DataCardError(
            f"the data card of {card.site} was approved on {card.approved}, and the one that is here on "
            f"{earlier.approved}; the newest counts: if it is not the newest after all, {AGAIN}"
        )
    make_private_folder(home.data_cards)
    _note(home, card, TAKEN)
    write_atomically(_file(home, card.site), card.text().encode())
    return True


def held(home: Home) -> tuple[Held, ...]:
    """Every enrolled site that is not revoked, by name, with its card where there is one.

    Raises:
        FolderError: the register cannot be read.
    """
    register = SiteRegister.read(home)
    return tuple(_held(home, register, site) for site in register.active)


def forget(home: Home, site: str) -> None:
    """Let the card of a site go, and the page on which it was; the log keeps that it was there, and no count of it."""
    path = _file(home, site)
    if not path.is_file():
        return
    (home.data_cards / PAGE).unlink(missing_ok=True)
    server_log(home).append(home.signer(), {"kind": KIND, "what": REMOVED, "site": site})
    path.unlink()


def strayed(entries: Sequence[Entry], found: Sequence[Held]) -> Iterator[tuple[int, str]]:
    """The line of each card that the log has and the folder has not, or has otherwise, and what is wrong."""
    last: Mapping[str, Entry] = {entry["site"]: entry for entry in entries if entry["kind"] == KIND}
    for one in found:
        entry = last.get(one.site)
        told = entry["digest"] if entry and entry["what"] == TAKEN else ""
        here = one.card.digest() if one.card else one.fault
        if here != told:
            line = entry["index"] + 1 if entry else len(entries)
            yield line, f"the data card of {one.site} that is here is not the one that the log has last"


def _check_sender(home: Home, register: SiteRegister, site: EnrolledSite, card: PublicCard) -> None:
    if site.revoked:
        raise DataCardError(f"{site.name} was revoked on {site.revoked[:10]}: {site.reason}; its data card stays out")
    if any(old.signing_key == card.key for old in register.retired):
        raise DataCardError(
            f"the data card of {site.name} was signed by a key from before it changed its keys; {AGAIN}"
        )
    card.verify(site.signing_key)
    if card.server_key not in ("", public_hex(home.signer())):
        raise DataCardError(
            f"the data card of {site.name} was approved for another federation; it takes this one's file in "
            f"(mumc-site join), and {AGAIN}"
        )


def _held(home: Home, register: SiteRegister, site: EnrolledSite) -> Held:
    path = _file(home, site.name)
    if not path.is_file():
        return Held(site=site.name)
    keys = {site.signing_key, *(old.signing_key for old in register.retired if old.name == site.name)}
    try:
        card = read(path)
        card.verify(card.key if card.key in keys else site.signing_key)
    except ProtocolError as error:
        return Held(site=site.name, fault=str(error))
    if card.site != site.name:
        return Held(site=site.name, fault=f"it is the data card of {card.site}")
    return Held(site=site.name, card=card)


def _note(home: Home, card: PublicCard, what: str) -> None:
    line = {"kind": KIND, "what": what, "site": card.site, "approved": card.approved, "digest": card.digest()}
    server_log(home).append(home.signer(), line)


def _file(home: Home, site: str) -> Path:
    return home.data_cards / f"{site}.json"
