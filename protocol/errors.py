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


class ExamplesError(UpdateError):
    """The count of examples is impossible or above the limit."""

    code = "bad_examples"


class StaleError(UpdateError):
    """The reply belongs to another run, round or attempt, or was trained from other weights."""

    code = "stale"


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
    """A chain of signed entries was edited, cut off, reordered or rolled back; the message names the first bad one."""

    code = "bad_chain"
