"""`backchannel forget-user`: erase what is stored about a user."""

from pathlib import Path

import click

from backchannel.ops.commands.dead_letter_file import forget_lines
from backchannel.ops.options import config_option, json_option, store_option
from backchannel.ops.paths import input_file
from backchannel.ops.terminal import print_json
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user as forget


@click.command("forget-user")
@click.argument("user", metavar="ID")
@store_option
@config_option
@click.option("--deep", is_flag=True, help="Also delete the texts that only this user asked.")
@click.option(
    "--dead-letters",
    type=input_file,
    help="Also delete the lines that name the user from a dead-letter file of `run`.",
)
@json_option
def forget_user(*, user: str, store: str, config: Config, deep: bool, dead_letters: Path | None, as_json: bool) -> None:
    """Erase what is stored about a user.

    The user's own layers of the memory index, the rewrites and the ranking, what is known about them as features, their
    visits and their labelled turns are deleted from the sums and from every retained version of the policy. Readers
    drop them with the next version. What the user taught is deleted, too, but for rules of a group; readers drop it
    within a second.

    What remains: sums over all users, in which single users cannot be identified; if `memory.min_users` is above 1,
    which of each query's 256 hash slots were hit; a sample of recent logged decisions, which names sessions but not
    users; and texts that only this user asked, unless `memory.min_users` kept them out, or --deep is given. Sums keep
    people in eight groups, so --deep also deletes texts that only others of the user's group asked; they are learned
    again when they are asked again.

    Backchannel does not delete events in your topics, files and backups and in the journal of `serve`, nor dead letters
    unless they are given: anything learned from them after this is stored again.
    """
    if not user:  # as an unset variable of a script is
        raise click.BadParameter("it is empty, and no user has such an id", param_hint="ID")
    gone = forget(store, config, user, deep=deep)
    lines = None if dead_letters is None else forget_lines(dead_letters, user)
    if as_json:
        print_json({"rows": gone, "lines": lines})
        return
    click.echo(f"{gone:,} rows of {user!r} deleted" if gone else f"nothing is stored about {user!r}")
    if not deep and config.memory.min_users == 1:
        click.echo("texts that only this user asked, if any, remain in the memory index and the rewrites: see --deep")
    if lines is None:
        click.echo("dead letters remain: see --dead-letters, and `backchannel dead-letters`")
    else:
        click.echo(f"{lines:,} lines deleted from {dead_letters}")
