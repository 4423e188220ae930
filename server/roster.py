"""The register of sites, `roster.json`: who is enrolled under which public keys, and which keys never come back."""

import json
from dataclasses import asdict, dataclass, replace

from configs.loader import load
from mumc_model.data.files import write_atomically
from protocol.enrolment import Enrolment
from protocol.errors import EnrolmentError
from server.errors import FolderError
from server.home import Home

VERSION = 1
MAX_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class EnrolledSite:
    """One row of the register."""

    name: str
    auth_key: str
    """P-384 public key in PEM; Flower knows the site's node by it."""
    signing_key: str
    """Ed25519 public key in hex."""
    units: int
    """Public enrolled weight, at least 1."""
    enrolled: str
    """ISO time of the enrolment of these keys."""
    revoked: str = ""
    """ISO time, or empty."""
    reason: str = ""
    """Why it was revoked."""


@dataclass(frozen=True, kw_only=True)
class RetiredKeys:
    """Keys that a site had before it rotated or was enrolled again."""

    name: str
    auth_key: str
    signing_key: str
    retired: str
    """ISO time."""


@dataclass(frozen=True, kw_only=True)
class SiteRegister:
    """All rows. It is never changed: every step gives a new one."""

    sites: tuple[EnrolledSite, ...] = ()
    retired: tuple[RetiredKeys, ...] = ()
    serial: int = 0
    """Of the newest join files."""
    version: int = VERSION

    @classmethod
    def read(cls, home: Home) -> "SiteRegister":
        """The register in a federation's folder.

        Raises:
            FolderError: it cannot be read, or is not one.
        """
        path = home.roster
        try:
            with path.open("rb") as file:
                register = load(cls, json.loads(file.read(MAX_BYTES)))
        except OSError as error:
            raise FolderError(f"{path} cannot be read: {error.strerror}; put it back from the backup") from None
        except (ValueError, RecursionError) as error:
            raise FolderError(f"{path} is not a register of sites: {error}; put it back from the backup") from None
        if register.version != VERSION:
            raise FolderError(f"{path} has version {register.version}, not {VERSION}; run the fedmumc that wrote it")
        return register

    def write(self, home: Home) -> None:
        """Replace the file in one step."""
        write_atomically(home.roster, json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n")

    @property
    def active(self) -> tuple[EnrolledSite, ...]:
        """The sites that may take part, by name."""
        return tuple(site for site in self.sites if not site.revoked)

    def site(self, name: str) -> EnrolledSite:
        """The row of a site.

        Raises:
            FolderError: there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.sites) or "none yet"
        raise FolderError(f"no site is called {name!r}; enrolled are {known}")

    def admit(self, enrolment: Enrolment, now: str) -> "SiteRegister":
        """With this site in it. The same enrolment once more changes nothing; its proofs are the caller's to check.

        Raises:
            EnrolmentError: the name or a key is taken, a key was revoked or retired, or new keys come unannounced.
        """
        row = EnrolledSite(
            name=enrolment.site,
            auth_key=enrolment.auth_key,
            signing_key=enrolment.signing_key,
            units=enrolment.units,
            enrolled=now,
        )
        earlier = next((site for site in self.sites if site.name.lower() == row.name.lower()), None)
        self._check_keys(row)
        if earlier is None:
            _check_new(enrolment)
            return self._with(row)
        if earlier.name != row.name:
            raise EnrolmentError(f"{row.name} differs from {earlier.name} by capitals alone; choose another name")
        if earlier.revoked:
            _check_new(enrolment)
        elif _same(earlier, row):
            return self
        else:
            _check_rotation(enrolment, earlier)
        old = RetiredKeys(name=row.name, auth_key=earlier.auth_key, signing_key=earlier.signing_key, retired=now)
        return replace(self._with(row), retired=(*self.retired, old))

    def revoke(self, name: str, reason: str, now: str) -> "SiteRegister":
        """With this site shut out.

        Raises:
            FolderError: there is no such site, or it is revoked already.
        """
        site = self.site(name)
        if site.revoked:
            raise FolderError(f"{name} was revoked on {site.revoked[:10]} already: {site.reason}")
        return self._with(replace(site, revoked=now, reason=reason))

    def answered(self) -> "SiteRegister":
        """With the serial of the next join files."""
        return replace(self, serial=self.serial + 1)

    def _with(self, row: EnrolledSite) -> "SiteRegister":
        others = [site for site in self.sites if site.name != row.name]
        return replace(self, sites=tuple(sorted([*others, row], key=lambda site: site.name)))

    def _check_keys(self, row: EnrolledSite) -> None:
        """Refuse a key that another site has, that was revoked, or that was retired."""
        for old in self.retired:
            if row.auth_key == old.auth_key or row.signing_key == old.signing_key:
                raise EnrolmentError(
                    f"a key in this file was retired on {old.retired[:10]} ({old.name}), and no key comes back; the "
                    "site makes new ones: mumc-site rotate, or init in a new folder"
                )
        for site in self.sites:
            shared = row.auth_key == site.auth_key or row.signing_key == site.signing_key
            if shared and site.revoked:
                raise EnrolmentError(
                    f"a key in this file was revoked on {site.revoked[:10]} ({site.name}: {site.reason}), and no key "
                    "comes back; the site makes new ones: mumc-site init in a new folder"
                )
            if shared and site.name != row.name:
                raise EnrolmentError(f"a key in this file is {site.name}'s; every site makes its own: mumc-site init")


def _same(one: EnrolledSite, other: EnrolledSite) -> bool:
    return (one.auth_key, one.signing_key, one.units) == (other.auth_key, other.signing_key, other.units)


def _check_new(enrolment: Enrolment) -> None:
    if enrolment.previous:
        raise EnrolmentError(
            f"{enrolment.site} is not enrolled here with earlier keys, and this file goes on from some; the site sends "
            "a first enrolment: mumc-site init"
        )


def _check_rotation(enrolment: Enrolment, earlier: EnrolledSite) -> None:
    """Refuse new keys for a name that is taken, unless the key that has it signed them."""
    if not enrolment.previous:
        raise EnrolmentError(
            f"{earlier.name} is enrolled already since {earlier.enrolled[:10]}, with other keys or another number of "
            "units; if it is the same site, it sends what mumc-site rotate writes, or is revoked first; else it "
            "chooses another name"
        )
    if enrolment.previous != earlier.signing_key:
        raise EnrolmentError(
            f"the new keys are not signed by the key with which {earlier.name} is enrolled; the site runs mumc-site "
            "rotate in the folder it takes part with"
        )
    if enrolment.auth_key == earlier.auth_key:
        raise EnrolmentError(f"{earlier.name} keeps its key for authentication; both are made anew: mumc-site rotate")
