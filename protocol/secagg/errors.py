"""What can go wrong in secure aggregation; codes are as stable as those of `protocol.errors`."""

from protocol.errors import ProtocolError


class SecaggError(ProtocolError, ValueError):
    """Base of every error of secure aggregation."""

    code = "secagg"


class SessionError(SecaggError):
    """The session itself cannot be: its sites, weights, threshold or range contradict each other."""

    code = "bad_session"


class PinError(SecaggError):
    """The session names a site, or a key of it, that this site has not pinned."""

    code = "unpinned_key"


class ShareOfSumError(SecaggError):
    """The weights make a sum that is little else than this site's update."""

    code = "dominant_site"


class AgreementKeyError(SecaggError):
    """An X25519 key is none, or leads to a secret that anybody knows."""

    code = "bad_agreement_key"


class StageError(SecaggError):
    """A stage is asked for out of turn, or of a round that has ended here."""

    code = "wrong_stage"


class ReplayError(SecaggError):
    """A stage that was answered is asked for again with another input; it is never done twice."""

    code = "repeated_stage"


class RevealedError(SecaggError):
    """This site has revealed its shares for the round; a second sum of it would tell updates apart."""

    code = "already_revealed"


class ThresholdError(SecaggError):
    """Fewer sites answered a stage than the threshold; nothing of the round can be opened any more."""

    code = "below_threshold"


class ConsistencyError(SecaggError):
    """Sites were told different things about who takes part."""

    code = "inconsistent_sites"


class ShareError(SecaggError):
    """A share was changed on its way, or shares do not combine to the secret that was announced."""

    code = "bad_share"


class RangeError(SecaggError):
    """No fixed-point format holds these values at the asked precision."""

    code = "bad_range"
