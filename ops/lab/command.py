"""`backchannel lab`: experiments on real corpora and in simulated worlds."""

import click

from backchannel.ops.groups import Group
from backchannel.ops.lab.asking.command import asking
from backchannel.ops.lab.failures.command import failures
from backchannel.ops.lab.goals.command import goals
from backchannel.ops.lab.horizon.command import horizon
from backchannel.ops.lab.labels.command import labels
from backchannel.ops.lab.satisfaction.command import satisfaction
from backchannel.ops.lab.search.command import search
from backchannel.ops.lab.search.orders_command import rank
from backchannel.ops.lab.shared_page.command import worlds


@click.group(cls=Group)
def lab() -> None:
    """Run experiments on corpora of your own, on public ones, and in simulated worlds."""


lab.add_command(asking)
lab.add_command(failures)
lab.add_command(goals)
lab.add_command(horizon)
lab.add_command(labels)
lab.add_command(rank)
lab.add_command(satisfaction)
lab.add_command(search)
lab.add_command(worlds)
