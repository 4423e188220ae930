"""What an engineer does about joining: keys and enrolment, taking an answer in, new keys, taking leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from client.config import SiteConfig, read_site_config
from client.keys import KeyPair, SiteKeys
from client.site_settings import write_limits
from configs.loader import ConfigurationError
from mumc_model.data.files import write_atomically
from mumc_model.data.schema import Unit
from protocol.certificates import check_authority, read_certificate
from protocol.enrolment import (
    Enrolment,
    Join,
    Leave,
    check_follows,
    check_is_for,
    check_is_newer,
    check_units,
    enrolment_of,
)
from protocol.errors import StrangerError
from protocol.papers import to_json
from protocol.signing import fingerprint, public_hex


def prepare(root: Path, name: str, units: int, unit: Unit = "patient") -> tuple[Path, Enrolment]:
    """The enrolment file of a site, new or imported before, after making its keys; `unit` is for a new one.

    A site that has set no limits gets the usual ones in its `site.yaml`, to look through before it starts.

    Raises:
        ConfigurationError: there is no name, or the folder is another site's.
        SigningError: the site has keys already.
        EnrolmentError: the units are no count.
    """
    settings = root / "site.yaml"
    config = read_site_config(root) if settings.exists() else None
    if config is None:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ConfigurationError(f"{root} is there already and is no site folder; choose another folder")
        config = SiteConfig(name=name, unit=unit)
    elif name and name != config.name:
        raise ConfigurationError(f"{settings} says the site is {config.name!r}, not {name!r}; give one of the two")
    keys = SiteKeys(root)
    check_units("--units", units)
    keys.make()
    if not settings.exists():
        for folder in ("images", "state"):
            (root / folder).mkdir(exist_ok=True)
        write_atomically(settings, yaml.safe_dump({"name": config.name, "unit": config.unit}).encode())
    if config.policy.runs is None:
        write_limits(root)
    return _write_enrolment(root, config.name, keys, units)


def rotate(root: Path, units: int) -> tuple[Path, Enrolment]:
    """The enrolment file for new keys, signed by the key in use, which stays in use until the server has answered.

    Raises:
        EnrolmentError: the site has not joined yet.
    """
    keys = SiteKeys.open(root)
    joined = keys.joined()
    if not keys.next.exists:
        keys.next.make()
    return _write_enrolment(root, joined.site, keys.next, units or joined.units, previous=keys)


@dataclass(frozen=True)
class Answer:
    """A join file that was checked against this site's keys and against what is pinned."""

    keys: SiteKeys
    join: Join
    pinned: Join | None
    rotates: bool
    """Whether it names the next keys, so that these come into use."""

    def take_in(self) -> None:
        """Pin it, and bring the next keys into use where it names them."""
        if self.rotates:
            self.keys.adopt_next(self.join)
        else:
            self.keys.pin(self.join)


def check_answer(root: Path, join: Join, *, replace: bool, now: datetime | None = None) -> Answer:
    """The answer, once everything about it is checked that needs no telephone; nothing is written.

    Raises:
        ProofError: it is not signed by the server that it names.
        StrangerError: it is for another site or other keys, or of another federation without `replace`.
        StaleJoinError: a newer one is pinned.
        CertificateError: its CA will not do.
    """
    site, keys = read_site_config(root).name, SiteKeys.open(root)
    join.verify()
    check_authority(read_certificate(join.ca, "CA certificate in the join file"), now or datetime.now(UTC))
    rotates = keys.next.exists and (join.auth_key, join.signing_key) == keys.next.public
    check_is_for(join, site, *(keys.next if rotates else keys).public)
    pinned = keys.pinned()
    if pinned is not None:
        try:
            check_follows(join, pinned)
        except StrangerError:
            if not replace:
                raise
            if join.server_key == pinned.server_key:
                check_is_newer(join, pinned)
    return Answer(keys, join, pinned, rotates)


def changes(join: Join, pinned: Join) -> list[str]:
    """What is new in a join file, a line each."""
    lines = [
        f"{word}: {getattr(pinned, name)} -> {getattr(join, name)}"
        for name, word in (("federation", "federation"), ("address", "address"), ("units", "units"))
        if getattr(join, name) != getattr(pinned, name)
    ]
    if join.ca != pinned.ca:
        lines.append("the federation's CA is another")
    if join.server_key != pinned.server_key:
        lines.append(f"the server's signing key is another; until now {fingerprint(pinned.server_key)}")
    if join.signing_key != pinned.signing_key:
        lines.append("this site's new keys come into use")
    return [*lines, *_peer_changes(join.peers, pinned.peers)]


def leave(root: Path, reason: str) -> tuple[Path, SiteKeys]:
    """The signed note with which the site leaves; its keys are still there, for the caller to destroy.

    Raises:
        EnrolmentError: the site has not joined.
    """
    keys = SiteKeys.open(root)
    joined = keys.joined()
    note = Leave(
        server_key=joined.server_key,
        site=joined.site,
        signing_key=public_hex(keys.signing()),
        reason=reason,
        left=_now(),
    ).signed(keys.signing())
    path = root / f"leave-{joined.site}.json"
    write_atomically(path, to_json(note).encode())
    enrolment_file(root, joined.site).unlink(missing_ok=True)
    return path, keys


def enrolment_file(root: Path, site: str) -> Path:
    """Where the site's own enrolment lies until it is sent."""
    return root / f"enrolment-{site}.json"


def _write_enrolment(
    root: Path, site: str, pair: KeyPair, units: int, previous: KeyPair | None = None
) -> tuple[Path, Enrolment]:
    enrolment = enrolment_of(
        site,
        pair.node_key(),
        pair.signing(),
        units=units,
        created=_now(),
        previous=previous.signing() if previous else None,
    )
    path = enrolment_file(root, site)
    write_atomically(path, to_json(enrolment).encode())
    return path, enrolment


def _peer_changes(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    gone = [f"peer left: {name}" for name in sorted(before.keys() - now.keys())]
    new = [f"peer joined: {name}" for name in sorted(now.keys() - before.keys())]
    other = [name for name in sorted(now.keys() & before.keys()) if now[name] != before[name]]
    return [*new, *gone, *(f"peer has new keys: {name}; it can confirm them by telephone" for name in other)]


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()
