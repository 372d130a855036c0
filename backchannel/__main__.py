"""`python -m backchannel` is `backchannel`."""

from backchannel.ops.cli import main

main()
