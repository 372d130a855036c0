"""`backchannel forget-user`: erase what is stored about a user."""

import click

from backchannel.ops.options import config_option, json_option, store_option
from backchannel.ops.terminal import print_json
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user as forget


@click.command("forget-user")
@click.argument("user", metavar="ID")
@store_option
@config_option
@json_option
def forget_user(user: str, store: str, config: Config, as_json: bool) -> None:
    """Erase what is stored about a user.

    The user's own layers of the memory index and the rewrites, and what is known about them as features, are deleted
    from the sums and from every retained version of the policy. Readers drop them with the next version. What the user
    taught is deleted, too, but for rules of a group; readers drop it within a second.

    What remains: sums over all users, in which single users cannot be identified; if `memory.min_users` is above 1,
    which of each query's 256 hash slots were hit; and a sample of recent logged decisions, which names sessions but not
    users. Backchannel does not delete events in your topics and files: anything learned from them
    after this is stored again.
    """
    gone = forget(store, config, user)
    if as_json:
        print_json({"rows": gone})
        return
    click.echo(f"{gone:,} rows of {user!r} deleted" if gone else f"nothing is stored about {user!r}")
