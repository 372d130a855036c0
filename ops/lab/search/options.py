"""The options that commands on a corpus share."""

import click

simulate_option = click.option(
    "--simulate",
    "simulated",
    type=click.IntRange(min=50),
    metavar="N",
    help="Simulate N queries on its catalogue instead of its own.",
)

dense_option = click.option(
    "--dense/--no-dense", default=True, show_default=True, help="Also search by embeddings (extra `dense`)."
)
