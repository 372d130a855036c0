"""`backchannel lab`: experiments on real corpora."""

import click

from backchannel.ops.lab.search.command import search
from backchannel.ops.lab.search.orders_command import rank


@click.group()
def lab() -> None:
    """Run experiments on corpora of your own and on public ones."""


lab.add_command(rank)
lab.add_command(search)
