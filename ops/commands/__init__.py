"""The commands of the `backchannel` command line that have no package of their own."""
