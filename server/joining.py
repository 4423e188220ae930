"""What the operator does to a federation's folder: make it, enrol, revoke, renew. Refusals leave it as it was."""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mumc_model.data.files import write_atomically
from protocol.certificates import read_certificate
from protocol.enrolment import Enrolment, Join, Leave
from protocol.keyfiles import make_private_folder, read_secret, write_secret
from protocol.papers import to_json
from protocol.signing import new_key, public_hex
from server import datacards
from server.certificates import Issued, new_authority, new_server, now_utc
from server.errors import FolderError
from server.home import FederationFile, Home, settings_text
from server.log import forget_site
from server.roster import SiteRegister


def create(root: Path, config: FederationFile, days: int) -> Home:
    """A new federation's folder, with its CA, its certificate and its signing key. It appears whole or not at all.

    Raises:
        FolderError: something is there already, or the disk refuses.
        CertificateError: no certificate can be made for these names and days.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FolderError(f"{root} is there already and not empty; choose another folder")
    now = now_utc()
    authority = new_authority(config.name, now)
    server = new_server(authority, config.names, now, days)
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _fill(Home(partial), config, authority, server)
        partial.rename(root)
    except OSError as error:
        raise FolderError(f"{root} cannot be made: {error.strerror}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Home(root)


def admit(home: Home, enrolment: Enrolment) -> SiteRegister:
    """The register with this site, once its proofs are checked; nothing is written yet.

    Raises:
        ProofError: its sender does not hold the keys.
        EnrolmentError: the register cannot take it.
    """
    enrolment.verify()
    return SiteRegister.read(home).admit(enrolment, now_utc().isoformat())


def publish(home: Home, register: SiteRegister) -> SiteRegister:
    """Write the register, and an answer to every site, since the peers of all have changed."""
    config, signer = home.config(), home.signer()
    ca = home.ca_cert.read_text(encoding="ascii")
    register = register.answered()
    keys = {site.name: site.signing_key for site in register.active}
    answers = {
        site.name: Join(
            federation=config.name,
            address=config.address,
            ca=ca,
            server_key=public_hex(signer),
            site=site.name,
            auth_key=site.auth_key,
            signing_key=site.signing_key,
            units=site.units,
            peers={name: key for name, key in keys.items() if name != site.name},
            serial=register.serial,
            issued=now_utc().isoformat(),
        ).signed(signer)
        for site in register.active
    }
    register.write(home)
    _write_answers(home, answers)
    return register


def revoke(home: Home, name: str, reason: str) -> SiteRegister:
    """The register without this site, written, with new answers to the others. Its data card goes first.

    Raises:
        FolderError: there is no such site, or it is revoked already.
    """
    without = SiteRegister.read(home).revoke(name, reason, now_utc().isoformat())
    datacards.forget(home, name)
    register = publish(home, without)
    forget_site(home, name)
    return register


def check_note(home: Home, note: Leave) -> None:
    """Return only if an enrolled site wrote this note, to leave this federation.

    Raises:
        FolderError: there is no such site.
        ProofError: another key wrote it, or it leaves another federation.
    """
    site = SiteRegister.read(home).site(note.site)
    note.verify(public_hex(home.signer()), site.signing_key)


def renew(home: Home, sans: Sequence[str], days: int) -> tuple[str, ...]:
    """A new key and certificate of the server from the same CA, so that no site has to do anything; its names.

    Raises:
        CertificateError: the CA cannot issue it.
        FolderError: federation.yaml cannot take the new names by program.
    """
    config = home.config()
    wanted = replace(config, sans=tuple(dict.fromkeys([*config.sans, *sans])))
    text = _with_sans(home.settings, config, wanted)
    authority = Issued(home.ca_cert.read_bytes(), read_secret(home.ca_key))
    server = new_server(authority, wanted.names, now_utc(), days)
    write_secret(home.server_key, server.key, replace=True)
    write_atomically(home.server_cert, server.certificate)
    if wanted != config:
        write_atomically(home.settings, text.encode())
    return wanted.names


def expiry(home: Home) -> str:
    """Last day of the server's certificate."""
    return f"{read_certificate(home.server_cert.read_bytes()).not_valid_after_utc:%Y-%m-%d}"


def _fill(home: Home, config: FederationFile, authority: Issued, server: Issued) -> None:
    make_private_folder(home.keys)
    for folder in (home.state, home.runs, home.sites):
        make_private_folder(folder)
    write_secret(home.ca_key, authority.key)
    write_secret(home.server_key, server.key)
    signing = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(home.signing_key, signing)
    write_secret(home.superexec_secret, secrets.token_hex(32).encode())
    write_atomically(home.ca_cert, authority.certificate)
    write_atomically(home.server_cert, server.certificate)
    write_atomically(home.settings, settings_text(config).encode())
    SiteRegister().write(home)


def _write_answers(home: Home, answers: Mapping[str, Join]) -> None:
    for name, answer in answers.items():
        write_atomically(home.join_file(name), to_json(answer).encode())
    for path in home.sites.glob("*.join.json"):
        if path.name.removesuffix(".join.json") not in answers:
            path.unlink(missing_ok=True)


def _with_sans(path: Path, config: FederationFile, wanted: FederationFile) -> str:
    """The text of federation.yaml with other `sans`; everything else in it stays, comments too."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith("sans:"):
            comment = line.partition("#")[1:]
            lines[number] = f"sans: {json.dumps(list(wanted.sans))}  {''.join(comment)}".rstrip() + "\n"
    text = "".join(lines)
    try:
        fits = yaml.safe_load(text) == {**yaml.safe_load(path.read_text(encoding="utf-8")), "sans": list(wanted.sans)}
    except yaml.YAMLError:
        fits = False
    if wanted != config and not fits:
        raise FolderError(f"{path} has no line `sans: [...]` to extend; add the names there yourself, then renew again")
    return text
