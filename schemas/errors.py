"""The errors that are not bugs."""


class BackchannelError(Exception):
    """Something outside this process is not as it must be: an input, the configuration, the store, Kafka.

    The message names what is wrong and the remedy. Every error that Backchannel raises on purpose is one.
    """
