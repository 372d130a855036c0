"""Conversion of public interaction logs to events: a pure generator per log, and the commands that write the events."""

from backchannel.schemas.errors import BackchannelError


class ConversionError(BackchannelError, ValueError):
    """A log is not in the format that its converter reads; the message names the place, the value and the remedy."""
