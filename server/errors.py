"""What can go wrong at the aggregator."""


class ServerError(Exception):
    """Base of every error that the server raises on purpose."""


class FederationError(ServerError):
    """Too few sites came, or too few of their updates could be merged; the message names the sites that were lost."""


class OutputError(ServerError):
    """The output folder holds another run, or the disk refuses; what was saved last is still whole."""


class FolderError(ServerError):
    """The federation's folder is missing, damaged, held by another command, or does not know the site."""


class ControlError(ServerError):
    """The SuperLink does not answer, or refuses what the operator's command asks."""
