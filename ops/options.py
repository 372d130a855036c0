"""The store that commands work with, and how they read it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import click
from sqlalchemy.exc import SQLAlchemyError

from backchannel.streams.snapshots.versions import CorruptPolicyError
from backchannel.streams.store.engine import Store, StoreError

STORE_VARIABLE = "BACKCHANNEL_STORE"

store_option = click.option(
    "--store",
    default="sqlite:///backchannel.db",
    show_default=True,
    envvar=STORE_VARIABLE,
    show_envvar=True,
    metavar="URL",
    help="The SQL store: sqlite:///FILE, or postgresql://USER@HOST/DATABASE?sslmode=verify-full.",
)

guess_option = click.option(
    "--guess-from",
    type=click.FloatRange(0.5, 1.0),
    metavar="SIMILARITY",
    help="Take a query that nothing is known of for the known one that it is so much like, as a reader with "
    "`guess_from` does: 0.5 to 1.  [default: do not]",
)


@contextmanager
def opened_store(url: str, *, create: bool = False, check: bool = True) -> Iterator[Store]:
    """A store; what is wrong with it is said in one line.

    Args:
        url: of the store, SQLAlchemy's.
        create: make it, if it is not there.
        check: that this Backchannel can work with it.
    """
    try:
        with closing(Store(url)) as store:
            if create:
                store.create([])
            if check:
                with store.read() as connection:
                    store.check(connection)
            yield store
    except (StoreError, CorruptPolicyError) as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        raise click.ClickException(f"the store does not answer: {error.args[0]}") from None
