"""What can go wrong on one machine, from the broadest to the narrowest."""


class MumcError(Exception):
    """Base of every error that the model's side raises on purpose."""


class ConfigError(MumcError, ValueError):
    """A configuration value is impossible; the message names it, its value and the remedy."""


class DataError(MumcError):
    """A site folder cannot be used; the message counts and never quotes a record."""


class CheckpointError(MumcError):
    """Weights are missing, unexpected or mis-shaped; the message lists them."""


class DivergedError(MumcError):
    """The loss is no longer a number."""


class DeviceError(MumcError):
    """The device or precision asked for is not here."""


class RanksError(MumcError):
    """The processes that train a site together do not: one ended, or they never met."""
