"""Errors that are not bugs."""


class BackchannelError(Exception):
    """Something outside this process is wrong: an input, the configuration, the store, Kafka.

    The message names the problem and the remedy. Every error that Backchannel raises on purpose derives from this.
    """
