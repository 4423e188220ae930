"""What one attempt at one round of secure aggregation is: everything that the sites and the server agree on before.

The digest of the session enters every signature and every derived key. A message, a share or a mask of another run,
round, attempt, base, list of sites, weight or format is therefore worth nothing in this one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar

from protocol.secagg.content import MAX_ITEMS, Content, require, require_hex, require_name
from protocol.secagg.errors import PinError, SessionError
from protocol.secagg.fixed_point import FixedPoint
from protocol.secagg.masks import MAX_VALUES
from protocol.signing import fingerprint, signed_bytes

LEAST_SITES = 3
MAX_WEIGHT = 2**40


def threshold_for(sites: int, colluding: int) -> int:
    """The least threshold t with 2t > sites + colluding.

    Two sets of t sites then share a site that does not collude and answers for one of them only, so that a server
    cannot open two sums of one round. Every sum also holds at least two sites that do not collude.

    Raises:
        SessionError: there are too few sites for that many colluding ones.
    """
    if sites < LEAST_SITES or not 0 <= colluding <= sites - 2:
        raise SessionError(
            f"{sites} sites of which {colluding} may collude: there must be at least {LEAST_SITES} sites, and two that "
            "do not collude, since the sum of one site is its update; enrol more sites"
        )
    return (sites + colluding) // 2 + 1


@dataclass(frozen=True, kw_only=True)
class Session(Content):
    """One attempt at one round."""

    kind: ClassVar[str] = "secagg_session"
    run_id: str
    round: int
    """From 1."""
    attempt: int
    """From 1; each has keys of its own."""
    keys: Mapping[str, str]
    """The Ed25519 key, in hex, of every site that may take part."""
    weights: Mapping[str, int]
    """The public weight of each of these sites in the mean, agreed before anyone trains."""
    colluding: int
    """How many sites may work together with the server, without learning another site's update."""
    threshold: int
    """How many sites must answer every stage."""
    schema_digest: str
    """Of the weights that travel (`WeightSchema.digest`)."""
    base_digest: str
    """Of the weights that the updates start from (`codec.digest`); whoever got others shares no key with the rest."""
    values: int
    """How many numbers an update has."""
    fixed_point: FixedPoint

    def __post_init__(self) -> None:
        """Refuse a session that would open too much, or whose sum could wrap."""
        require_name("session.run_id", self.run_id)
        require_hex("session.schema_digest", self.schema_digest, 32)
        require_hex("session.base_digest", self.base_digest, 32)
        for name, key in self.keys.items():
            require_name("session.keys", name)
            require_hex(f"session.keys.{name}", key, 32)
        for name, value, most in (
            ("round", self.round, 2**31),
            ("attempt", self.attempt, 2**31),
            ("values", self.values, MAX_VALUES),
        ):
            require(1 <= value <= most, f"session.{name} is {value}, outside 1 to {most}")
        self._check_sites()
        self.fixed_point.check_no_wrap(len(self.keys))

    def _check_sites(self) -> None:
        sites = len(self.keys)
        require(sites <= MAX_ITEMS, f"session.keys has {sites} sites, over {MAX_ITEMS}")
        least = threshold_for(sites, self.colluding)
        if not least <= self.threshold <= sites:
            raise SessionError(
                f"a threshold of {self.threshold} with {sites} sites of which {self.colluding} may collude; "
                f"it must be from {least} (2t > n + c) to {sites}"
            )
        if len(set(self.keys.values())) != sites:
            raise SessionError("two sites have the same key, and would count twice; enrol each site with its own")
        if self.weights.keys() != self.keys.keys():
            raise SessionError("the weights are not those of exactly the sites that have keys; give one to each")
        wrong = sorted(name for name, weight in self.weights.items() if not 1 <= weight <= MAX_WEIGHT)
        if wrong:
            raise SessionError(f"{len(wrong)} weights are outside 1 to {MAX_WEIGHT}, first that of {wrong[0]}")

    @property
    def sites(self) -> tuple[str, ...]:
        """The names in sorted order; a site's share of a secret has its place in it, from 1, as abscissa."""
        return tuple(sorted(self.keys))

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over the canonical JSON of all of it."""
        return hashlib.sha256(signed_bytes("secagg/session", self.to_dict())).hexdigest()

    def index(self, site: str) -> int:
        """The abscissa of the site's shares, from 1."""
        return self.sites.index(site) + 1

    def share(self, *sites: str) -> Fraction:
        """The weight of these sites over the weight of all sites of the session."""
        return Fraction(sum(self.weights[site] for site in sites), sum(self.weights.values()))

    def worst_share(self, site: str) -> Fraction:
        """The largest weight that the site can have among those of a sum who do not collude; near 1 it stands alone.

        The worst sum holds the site, `colluding` sites that know each other's updates, and the lightest of the rest.
        """
        others = sorted(weight for name, weight in self.weights.items() if name != site)
        cover = sum(others[: self.threshold - 1 - self.colluding])
        return Fraction(self.weights[site], self.weights[site] + cover)

    def check_pinned(self, pinned: Mapping[str, str]) -> None:
        """Return only if each site's key is the one that is pinned: by its fingerprint, or as a whole in hex.

        Raises:
            PinError: a site is not pinned, or has another key.
        """
        for site in self.sites:
            mark = fingerprint(self.keys[site])
            if site not in pinned:
                raise PinError(
                    f"the site {site} ({mark}) is not pinned here; compare the fingerprint with the site by telephone, "
                    "then pin it"
                )
            if pinned[site] not in (mark, self.keys[site]):
                raise PinError(
                    f"the server names the key {mark} for the site {site}, and another is pinned here; take no part "
                    "until the site itself says which is right"
                )
