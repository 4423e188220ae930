"""What a ledger's rows add up to: who may sign, what was approved, charged and withdrawn."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from client.privacy.errors import LedgerError, PolicyError
from client.privacy.ledger_rows import Charge, Reservation
from client.privacy.policy import PrivacyPolicy, moment, verify_policy
from protocol.errors import ProtocolError
from protocol.signing import fingerprint, verify

HANDOVER = "privacy-handover"


class Book:
    """The state after some rows. The chain has vouched for the rows; here they must make sense, too."""

    def __init__(self, ledger: str = "") -> None:
        self.ledger = ledger
        """The public key that signs the rows."""
        self.policy: PrivacyPolicy | None = None
        """As it was approved last."""
        self.officer = ""
        """The public key that may approve: pinned by the first approval, changed by a handover."""
        self.reservations: dict[str, Reservation] = {}
        self.order: float | None = None
        """Rényi order of the filter: fixed with the first charge, before anything was released."""
        self.excluded: set[str] = set()
        self._last_signed = ""

    def check(self, row: Mapping[str, Any]) -> None:
        """Return only if the row may come next.

        Raises:
            PolicyError: it is an approval or a handover that the pinned officer did not sign, or an old one.
            LedgerError: it makes no sense after the rows before it, or is of a kind that is not known.
        """
        checks: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "approved": self._check_approval,
            "handover": self._check_handover,
            "reserved": self._check_reserved,
            "reconciled": self._check_reconciled,
            "excluded": lambda found: _text(found, "unit"),
            "recovered": lambda found: _text(found, "digest"),
        }
        kind = row.get("kind")
        if kind not in checks:
            raise LedgerError(
                f"a row of the kind {kind!r} is not known here; a newer version wrote it: update this one"
            )
        checks[str(kind)](row)

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Take in the next entry of the chain.

        Raises:
            PolicyError: as `check`.
            LedgerError: as `check`.
        """
        self.check(entry)
        kind = entry["kind"]
        if kind == "approved":
            self.policy = PrivacyPolicy.from_dict(entry["policy"])
            self.officer, self._last_signed = self.policy.public_key, self.policy.approved
        elif kind == "handover":
            self.officer, self._last_signed = entry["to"], entry["signed"]
        elif kind == "reserved":
            self._reserve(entry)
        elif kind == "reconciled":
            done = dataclasses.replace(self.reservations[entry["reservation"]], steps_done=entry["steps_done"])
            self.reservations[done.id] = done
        elif kind == "excluded":
            self.excluded.add(entry["unit"])

    def _reserve(self, entry: Mapping[str, Any]) -> None:
        self.reservations[entry["hash"]] = Reservation(
            id=entry["hash"],
            time=_text(entry, "time"),
            charge=Charge.from_dict(entry),
            epsilon_after=entry["epsilon_after"],
            code=str(entry.get("code", "")),
        )
        self.order = entry["order"]

    def _check_approval(self, row: Mapping[str, Any]) -> None:
        policy = PrivacyPolicy.from_dict(row["policy"] if isinstance(row.get("policy"), dict) else {})
        verify_policy(policy, _text(row, "site"))
        if self.officer and policy.public_key != self.officer:
            raise PolicyError(
                f"the policy is signed by the key {fingerprint(policy.public_key)}, and this site's officer has the "
                f"key {fingerprint(self.officer)}; let that officer hand over first (approve --handover NEW.pub)"
            )
        self._check_order(policy.approved)

    def _check_handover(self, row: Mapping[str, Any]) -> None:
        if not self.officer or (row.get("ledger"), row.get("from")) != (self.ledger, self.officer):
            raise PolicyError("only the key that approved this site's policy can hand over; sign with that key")
        try:
            verify(self.officer, HANDOVER, handover_payload(row), _text(row, "approval"))
            fingerprint(_text(row, "to"))
        except ProtocolError as error:
            raise PolicyError(f"the handover is not signed by this site's officer: {error}") from None
        self._check_order(_text(row, "signed"))

    def _check_order(self, signed: str) -> None:
        """What was signed earlier cannot be put in force again."""
        try:
            late = not self._last_signed or moment(signed) > moment(self._last_signed)
        except ValueError:
            raise PolicyError(f"the time of signing is {signed[:40]!r}; sign again") from None
        if not late:
            raise PolicyError(
                f"this was signed on {signed}, and something newer is in force since {self._last_signed}; "
                "sign again, with the clock set right"
            )

    def _check_reserved(self, row: Mapping[str, Any]) -> None:
        Charge.from_dict(row)
        for name in ("order", "epsilon_after"):
            if type(row.get(name)) is not float:
                raise LedgerError(f"a row of the kind 'reserved' lacks {name!r}")
        if self.order not in (None, row["order"]):
            raise LedgerError(
                f"the filter's order was {self.order} and a charge uses {row['order']}; it is never changed"
            )

    def _check_reconciled(self, row: Mapping[str, Any]) -> None:
        found = self.reservations.get(_text(row, "reservation"))
        if found is None:
            raise LedgerError("there is no such reservation in this site's ledger; reconcile with the id of `reserve`")
        if found.steps_done is not None:
            raise LedgerError(
                f"round {found.charge.round} was reconciled already, to {found.steps_done} steps; "
                "work that is done again is reserved again"
            )
        steps = row.get("steps_done")
        if type(steps) is not int or not 0 <= steps <= found.charge.event.steps:
            raise LedgerError(f"{steps} steps were reported for {found.charge.event.steps} that were reserved")


def handover_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a handover is signed by the old officer; the ledger's own key binds it to one ledger."""
    return {name: row.get(name) for name in ("ledger", "from", "to", "signed")}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise LedgerError(f"a row of the kind {row.get('kind')!r} lacks {name!r}")
    return value
