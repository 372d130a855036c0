"""`backchannel forget-user`: remove what was stored of a user."""

import click

from backchannel.ops.commands.config import config_option
from backchannel.ops.options import store_option
from backchannel.streams.config import Config
from backchannel.streams.pipeline.erasure import forget_user as forget
from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import StoreError


@click.command("forget-user")
@click.argument("user", metavar="ID")
@store_option
@config_option
def forget_user(user: str, store: str, config: Config) -> None:
    """Erase what is stored about a user.

    Their own layers of memory index and rewrites, and what is known of them as features, go from the
    sums and from all versions of the policy that are retained; readers drop it with the next version.

    What remains: the sums over everybody, in which no user can be told from another; where `memory.min_users` is more
    than 1, which of a query's 256 slots were hit; and a sample of logged decisions, which names sessions but no users,
    until it has faded. Events are not Backchannel's to delete: those in your topics and files are yours, and what is
    learned from them from now on is remembered anew.
    """
    try:
        gone = forget(store, config, user)
    except (CorruptPolicyError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{gone:,} rows of {user!r} are gone" if gone else f"nothing was stored of {user!r}")
