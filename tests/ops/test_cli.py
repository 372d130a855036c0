"""What all commands have in common."""

from collections.abc import Iterator

import click

from backchannel.ops.cli import main
from backchannel.ops.open_store import STORE_VARIABLE


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def test_every_command_that_has_a_usual_store_takes_it_from_the_environment() -> None:
    usual = {}
    for name, command in commands(main):
        for option in command.params:
            if option.name == "store" and isinstance(option.default, str):
                usual[name] = option.envvar
    assert {"run", "worker", "health", "snapshots list", "rewrites pin", "prime"} <= usual.keys()
    assert set(usual.values()) == {STORE_VARIABLE}, usual


def test_every_command_says_what_it_is_for() -> None:
    assert [name for name, command in commands(main) if not command.help] == []
