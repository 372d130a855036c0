"""Public interaction logs as events: one module per log, each a pure generator, and the commands that write them."""

from backchannel.schemas.errors import BackchannelError


class ConversionError(BackchannelError, ValueError):
    """A log is not of the form that its converter reads. The message says where, what was found, and the remedy."""
