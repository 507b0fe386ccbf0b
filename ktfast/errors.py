"""The exceptions ktfast raises on purpose; the command line prints them as one sentence."""


class InputError(ValueError):
    """The user's data, file or option is at fault; the message names it and says what to do."""


class DataError(InputError):
    """An image, a data set or an artifact cannot be used; the message names the path."""


class ConfigError(InputError):
    """A configuration value is unknown or impossible; the message names the option."""
