"""`backchannel dashboard`: serves the dashboard's page."""

import secrets
from contextlib import closing

import click
from msgspec import structs

from backchannel.ops.dashboard.server import application
from backchannel.ops.dashboard.state import Observatory
from backchannel.ops.options import (
    config_option,
    guess_option,
    host_option,
    kafka_config,
    opened_store,
    port_option,
    servers_option,
    store_option,
)
from backchannel.ops.web.guard import is_loopback
from backchannel.ops.web.pages import serve
from backchannel.streams.config import Config


@click.command("dashboard")
@store_option
@config_option
@servers_option
@guess_option
@host_option
@port_option(8765)
@click.option(
    "--token",
    envvar="BACKCHANNEL_DASHBOARD_TOKEN",
    show_envvar=True,
    help="Token required to view the page.  [default: none on a loopback address; else a random one, which is printed]",
)
def dashboard(
    *,
    store: str,
    config: Config,
    servers: str | None,
    guess_from: float | None,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Serve a page that shows what was learned, how well it works, and what the policy does with a query.

    The server is read-only: it reads the store, and asks the brokers for the ends of their logs. It also works while
    the brokers are unavailable, and on the store of `backchannel run`. The page loads nothing from other servers.

    The connection is not encrypted: to serve other machines, put a proxy with TLS in front.
    """
    config = structs.replace(config, kafka=kafka_config(config, servers))
    if not token:  # an empty one, as of a variable that is not set, would let everybody in
        token = None if is_loopback(host) else secrets.token_urlsafe(16)
    try:
        with opened_store(store, check=False) as opened:
            opened.require()
            with closing(Observatory(opened, config, guess_from)) as observatory:
                observatory.reader.start()
                serve(application(observatory, token), host, port, token)
    except ModuleNotFoundError as error:  # of an extra
        raise click.ClickException(str(error)) from None
