"""The commands of the `backchannel` command line that have no room of their own."""
