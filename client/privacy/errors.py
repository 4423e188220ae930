"""What can go wrong with a privacy budget. Each error has a code that may leave the site; its text stays there."""

from mumc_model.errors import MumcError


class PrivacyError(MumcError):
    """Base of every refusal of the privacy side; `code` is what a server may see of it."""

    code: str = "privacy"


class PlanError(PrivacyError, ValueError):
    """A plan's numbers are impossible: epsilon, delta, batch or patients."""

    code = "privacy_plan"


class CouplingError(PrivacyError):
    """A model, loss or sampler would let one unit's data reach another unit's gradient."""

    code = "privacy_coupling"


class PolicyError(PrivacyError):
    """There is no signed policy, its signature is not the officer's, or a run asks for less protection than it."""

    code = "privacy_policy"


class BudgetExceededError(PrivacyError):
    """The work asked for would spend more than the signed cap."""

    code = "privacy_budget"


class ProvenanceError(PrivacyError):
    """A run under differential privacy met state that uncharged training on the same patients has touched."""

    code = "privacy_provenance"


class LedgerError(PrivacyError):
    """The ledger cannot be trusted or written: edited, cut off, rolled back, or held by another process."""

    code = "privacy_ledger"
