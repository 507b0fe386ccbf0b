"""The exceptions of ktfast. The command line prints such an exception as one sentence."""


class InputError(ValueError):
    """The user's data, file or option cannot be used; the message names it and says what to do."""


class DataError(InputError):
    """An image, a data set or an artifact cannot be used; the message names the path."""


class ConfigError(InputError):
    """An option is unknown or has an impossible value; the message names the option."""
