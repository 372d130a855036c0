"""How people run it: the `backchannel` command."""
