"""What can go wrong between a site and the server. Each error has a stable code that may travel."""


class ProtocolError(Exception):
    """Base of every error of the protocol; `code` is what the other side and the journal see."""

    code: str = "protocol"


class MessageError(ProtocolError, ValueError):
    """A message cannot be read: a field is missing, unknown or of the wrong kind."""

    code = "bad_message"


class VersionError(MessageError):
    """The other side speaks another version of the protocol."""

    code = "bad_version"


class SchemaError(ProtocolError, ValueError):
    """Weights cannot be described: a tensor is not of a floating-point type."""

    code = "bad_schema"


class UpdateError(ProtocolError, ValueError):
    """Base of what disqualifies the arrays or the claims of one site's reply."""

    code = "bad_update"


class MissingWeightsError(UpdateError):
    """Arrays that the schema names are not there."""

    code = "missing_weights"


class UnexpectedWeightsError(UpdateError):
    """There are arrays that the schema does not name."""

    code = "unexpected_weights"


class ShapeError(UpdateError):
    """An array has another shape than the schema says; nothing is ever broadcast."""

    code = "wrong_shape"


class DtypeError(UpdateError):
    """An array has another type than the schema says; nothing is ever cast."""

    code = "wrong_dtype"


class NotFiniteError(UpdateError):
    """A value is NaN or infinite."""

    code = "not_finite"


class CodecError(UpdateError):
    """Encoded values are none that the codec writes."""

    code = "bad_codec"


class ExamplesError(UpdateError):
    """The count of examples is impossible or above the limit."""

    code = "bad_examples"


class StaleError(UpdateError):
    """The reply belongs to another run, round or attempt, or was trained from other weights."""

    code = "stale"


class NormError(UpdateError):
    """An update is much longer than those of the other sites, and than those of earlier rounds."""

    code = "norm_too_large"


class FreeRiderError(UpdateError):
    """An update is nothing, what the server sent, another site's update, or noise: what takes no data to make."""

    code = "free_rider"


class OpposedError(UpdateError):
    """An update points against those of most other sites."""

    code = "opposed"


class IdentityError(UpdateError):
    """Two nodes claim to be the same site."""

    code = "duplicate_site"


class SigningError(ProtocolError, ValueError):
    """A key cannot be used: not a key, its password is wrong, or its file is open to others."""

    code = "bad_key"


class SignatureError(ProtocolError, ValueError):
    """A signature is not of this key over these bytes."""

    code = "bad_signature"


class ChainError(ProtocolError, ValueError):
    """A chain of signed entries was edited, cut off, reordered or rolled back; the message names the first bad one.

    Args:
        text: What is wrong.
        index: Of that entry, from 0, where it is one.
    """

    code = "bad_chain"

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


class EnvelopeError(ProtocolError, ValueError):
    """A message is unsigned, signed by another, changed, replayed, or meant for another place."""

    code = "bad_seal"


class LogError(ProtocolError, OSError):
    """A log cannot be written or read, or another process holds it for too long."""

    code = "log_unusable"


class BundleError(ProtocolError, ValueError):
    """A run's bundle is none, or not the code that is installed here."""

    code = "other_code"


class EnrolmentError(ProtocolError, ValueError):
    """An enrolment, join or leave file is not one, or it does not fit what is known of the site."""

    code = "bad_enrolment"


class ProofError(EnrolmentError):
    """Who sent the file does not hold the private keys that it names."""

    code = "bad_proof"


class StaleJoinError(EnrolmentError):
    """A join file is older than the one that is pinned."""

    code = "old_join"


class StrangerError(EnrolmentError):
    """A join file is of another federation, another server, or for other keys than this site's."""

    code = "wrong_join"


class CertificateError(ProtocolError, ValueError):
    """A certificate cannot be used; the message names it, the dates and the remedy."""

    code = "bad_certificate"


class NotYetValidError(CertificateError):
    """A certificate begins later than this machine's clock says."""

    code = "certificate_not_yet_valid"


class ExpiredError(CertificateError):
    """A certificate has ended."""

    code = "certificate_expired"


class AuthorityError(CertificateError):
    """A certificate was not issued by the federation's CA."""

    code = "certificate_wrong_ca"


class HostNameError(CertificateError):
    """A certificate is not for the name that was dialled."""

    code = "certificate_wrong_name"


class ProcessError(ProtocolError, RuntimeError):
    """One of Flower's programs cannot be started, or has ended."""

    code = "process"
