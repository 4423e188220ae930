"""What the checks of configurations share: a message with the value and the remedy, or nothing."""

from mumc_model.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message where the condition does not hold."""
    if not condition:
        raise ConfigError(message)


def require_share(name: str, value: float) -> None:
    """Raises ConfigError where a value is no share."""
    require(0.0 <= value <= 1.0, f"{name} is {value}, but it is a share: choose it between 0 and 1")


def require_at_least(least: float, section: str, settings: object, *names: str) -> None:
    """Raises ConfigError where one of the named settings is too small."""
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{section}.{name} is {value}; choose {least:g} or more")
