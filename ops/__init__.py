"""The `backchannel` command, and everything that people run with it."""
