"""A site's ledger of privacy budget: what is in it was charged, and what is not in it may not be done."""

import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.config import read_site_config
from client.privacy.budget import epsilon_with, filter_epsilon, filter_order
from client.privacy.errors import LedgerError, PolicyError
from client.privacy.event import Event, merge
from client.privacy.ledger_book import HANDOVER, handover_payload
from client.privacy.ledger_rows import Charge, Reservation, code_digest, now, row
from client.privacy.ledger_store import CONTEXT, LedgerStore
from client.privacy.policy import PrivacyPolicy, check_site_unit, check_strength, read_policy, write_policy
from protocol.hashchain import Head
from protocol.signing import public_hex, sign


class Ledger:
    """The ledger of one site's folder, as it was when it was opened or last written by this object."""

    def __init__(self, root: Path) -> None:
        """Use `Ledger.open`, which verifies."""
        self._root, self._store = root, LedgerStore(root)

    @classmethod
    def open(cls, root: Path) -> "Ledger":
        """The ledger of a site's folder, all of it verified; an empty one where nothing was ever kept.

        Raises:
            LedgerError: a row was changed, moved or lost, or this is an older copy; nothing may be charged then.
        """
        ledger = cls(root)
        if ledger._store.file.exists():
            with ledger._store.changing():
                pass
        return ledger

    @property
    def head(self) -> Head:
        """How far the ledger goes: what to anchor elsewhere."""
        return self._store.head

    @property
    def public_key(self) -> str:
        """The key that signs the rows; empty before the first."""
        return public_hex(self._store.key) if self._store.key else ""

    @property
    def officer(self) -> str:
        """The public key of the officer who may approve; empty before the first approval."""
        return self._store.book.officer

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Everything that was ever charged, oldest first."""
        return tuple(self._store.book.reservations.values())

    @property
    def order(self) -> float | None:
        """Rényi order of the filter, fixed with the first charge; None before it."""
        return self._store.book.order

    def policy(self) -> PrivacyPolicy:
        """The policy in force.

        Raises:
            PolicyError: there is none, or site.yaml has another one than was approved last.
        """
        policy = read_policy(self._root)
        if policy is None:
            raise PolicyError("this site has no signed privacy policy; let its officer run `mumc-privacy approve`")
        if policy != self._store.book.policy:
            raise PolicyError(
                "the policy in site.yaml is not the one that was approved last at this site; "
                "let the privacy officer run `mumc-privacy approve` again"
            )
        return policy

    def spent(self) -> tuple[Event, ...]:
        """What was done and reconciled."""
        return merge(found.event for found in self.reservations if found.steps_done is not None)

    def reserved(self) -> tuple[Event, ...]:
        """What was reserved and never reconciled; it counts in full."""
        return merge(found.event for found in self.reservations if found.steps_done is None)

    def events(self) -> tuple[Event, ...]:
        """All that counts."""
        return merge(found.event for found in self.reservations)

    def epsilon(self, accountant: Literal["rdp", "pld"] = "rdp") -> float:
        """The epsilon of all that counts at the policy's delta; by RDP it is the value that the cap stops.

        Raises:
            PolicyError: there is no policy in force.
        """
        policy = self.policy()
        if accountant == "rdp":
            return filter_epsilon(self.events(), policy.delta, self.order)
        from client.privacy.accounting import epsilon_pld

        return epsilon_pld(self.events(), policy.delta)

    def remaining(self) -> float:
        """How far the RDP filter is below the cap.

        Raises:
            PolicyError: there is no policy in force.
        """
        return max(0.0, self.policy().epsilon - self.epsilon())

    def reserve(self, charge: Charge, *, units: Iterable[str]) -> str:
        """The id of a charge that is on the disk: only now may its first step be taken.

        Args:
            charge: The work, with all its steps. Work that is done again is a new charge.
            units: The patients whose data it may touch (where the unit is the record, the patients all the same).

        Raises:
            BudgetExceededError: the cap would be exceeded; nothing was charged.
            PolicyError: there is no policy in force, or the work is weaker than it.
            LedgerError: the ledger is not to be trusted or written, a unit was withdrawn, or another ledger has it.
        """
        ids = set(units)
        if not ids:
            raise LedgerError("a charge names no unit; say whose data the work may touch")
        with self._store.changing() as key:
            policy = self.policy()
            check_strength(policy, charge.unit, charge.event.noise_multiplier)
            order = self.order or filter_order(policy.epsilon, policy.delta, charge.event)
            after = epsilon_with(policy, self.events(), charge, order)
            if withdrawn := len(self.excluded(ids)):
                raise LedgerError(f"{withdrawn} of the units were withdrawn; leave out those that `excluded` names")
            self._store.registry.charge(public_hex(key), ids)
            facts = {**charge.to_dict(), **_priced(policy, after), "order": order, "code": code_digest()}
            return str(self._store.append(row("reserved", **facts))["hash"])

    def reconcile(self, reservation: str, steps_done: int) -> None:
        """Lower a reservation to the steps that were taken; once, and only downwards.

        Raises:
            LedgerError: it is unknown or was reconciled already, or more was done than was reserved.
        """
        with self._store.changing():
            body = row("reconciled", reservation=reservation, steps_done=steps_done)
            self._store.book.check(body)
            policy = self._store.book.policy
            if policy is not None:
                event = self._store.book.reservations[reservation].charge.event
                left = Event(sample_rate=event.sample_rate, noise_multiplier=event.noise_multiplier, steps=steps_done)
                others = [found.event for found in self.reservations if found.id != reservation]
                body |= _priced(policy, filter_epsilon([*others, left], policy.delta, self.order))
            self._store.append(body)

    def approve(self, policy: PrivacyPolicy) -> None:
        """Put a signed policy in force: as a row, and in site.yaml.

        Raises:
            PolicyError: the pinned officer did not sign it for this site, it is older than the one in force, or more
                was spent already than it allows.
            LedgerError: the ledger is not to be trusted or written.
        """
        with self._store.changing():
            config = read_site_config(self._root)
            check_site_unit(policy, config.unit)
            body = row("approved", site=config.name, policy=policy.to_dict())
            self._store.book.check(body)
            if (spent := filter_epsilon(self.events(), policy.delta, self.order)) > policy.epsilon:
                raise PolicyError(
                    f"epsilon {spent:.3f} at delta={policy.delta:g} is spent or reserved already, above the new limit "
                    f"{policy.epsilon:.3f}; what was spent cannot be taken back: choose a limit of at least that"
                )
            self._store.append(body)
            write_policy(self._root, policy)

    def hand_over(self, new_officer: str, key: Ed25519PrivateKey) -> None:
        """Let another public key approve from now on, signed by the key that did so far.

        Raises:
            PolicyError: the key is not the pinned officer's.
            LedgerError: the ledger is not to be trusted or written.
        """
        with self._store.changing() as own:
            body = row("handover", ledger=public_hex(own), to=new_officer, signed=now()) | {"from": public_hex(key)}
            self._store.append(body | {"approval": sign(key, HANDOVER, handover_payload(body))})

    def exclude(self, patient_id: str) -> None:
        """Withdraw a patient, from the next round on. Only a keyed hash is kept.

        Raises:
            LedgerError: the ledger is not to be trusted or written.
        """
        with self._store.changing() as key:
            hashed = _hashed(_exclusion_key(key), patient_id)
            if hashed not in self._store.book.excluded:
                self._store.append(row("excluded", unit=hashed))

    def excluded(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that were withdrawn."""
        if not self._store.book.excluded or self._store.key is None:
            return set()
        secret = _exclusion_key(self._store.key)
        return {unit for unit in ids if _hashed(secret, unit) in self._store.book.excluded}

    @property
    def excluded_count(self) -> int:
        """How many patients were withdrawn."""
        return len(self._store.book.excluded)

    def open_key(self) -> str:
        """The public key that signs the rows, made where nothing was kept yet.

        Raises:
            LedgerError: the ledger is not to be trusted, or the key cannot be used.
        """
        with self._store.changing() as key:
            return public_hex(key)

    def sign(self, context: str, payload: Mapping[str, Any]) -> str:
        """The signature of the ledger's key under another context than the rows', so that none passes for a row.

        Raises:
            LedgerError: the ledger is not to be trusted, or the key cannot be used.
        """
        assert context != CONTEXT, "rows are signed by the store alone"
        with self._store.changing() as key:
            return sign(key, context, payload)

    def check_anchor(self, anchor: str) -> None:
        """Return only if this ledger goes on from a row whose hash was kept elsewhere.

        Raises:
            LedgerError: it does not: it is an older copy, or was written anew.
        """
        if anchor != Head().hash and all(entry["hash"] != anchor for entry in self._store.entries):
            raise LedgerError(
                f"none of the ledger's {self.head.count} rows is the one that the server last heard of: an older copy "
                "was put in its place, or it was written anew; put the newest copy back"
            )


def excluded_units(root: Path, ids: Iterable[str]) -> set[str]:
    """Those of the ids that were withdrawn at the site; a site without a ledger has none.

    Raises:
        LedgerError: the ledger is not to be trusted.
    """
    return Ledger.open(root).excluded(ids)


def _priced(policy: PrivacyPolicy, after: float) -> dict[str, Any]:
    from client.privacy.accounting import RDP_NAME

    return {"accountant": RDP_NAME, "epsilon_after": after, "delta": policy.delta}


def _exclusion_key(key: Ed25519PrivateKey) -> bytes:
    """Derived from the ledger's key, so that exclusions hold where the folder is moved to another machine."""
    return hmac.digest(key.private_bytes_raw(), b"fedmumc/1/excluded", "sha256")


def _hashed(secret: bytes, unit: str) -> str:
    return hmac.digest(secret, unit.encode("utf-8", "surrogatepass"), "sha256").hex()
