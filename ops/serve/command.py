"""`backchannel serve`: the policy and the events over HTTP."""

import os
import secrets
import sys
from pathlib import Path
from typing import Final, Literal

import click
from msgspec import structs
from sqlalchemy import make_url

from backchannel.ops.options import (
    config_option,
    guess_option,
    host_option,
    kafka_config,
    log_option,
    port_option,
    servers_option,
    store_option,
)
from backchannel.ops.serve.processes import Plan, run
from backchannel.ops.terminal import log_to_stderr, print_json
from backchannel.ops.web.access import TOKENS_VARIABLE
from backchannel.ops.web.addresses import free_port
from backchannel.ops.web.guard import is_loopback
from backchannel.streams.config import Config
from backchannel.streams.store.engine import Store

SHORTEST_TOKEN: Final = 16


@click.command("serve")
@store_option
@config_option
@servers_option
@guess_option
@click.option(
    "--events",
    type=click.Choice(["journal", "kafka", "none"]),
    default="journal",
    show_default=True,
    help="Destination of accepted events: a journal on this machine, from which this command learns and publishes; "
    "the Kafka topics, for workers; or none, to serve decisions only.",
)
@click.option(
    "--journal",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder of the journal.  [default: beside the SQLite store, FILE.journal]",
)
@host_option
@port_option(8766)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Number of processes that answer, all on the same port.",
)
@log_option
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document instead of serving.")
def serve(
    *,
    store: str,
    config: Config,
    servers: str | None,
    guess_from: float | None,
    events: Literal["journal", "kafka", "none"],
    journal: Path | None,
    host: str,
    port: int,
    processes: int,
    log: Literal["text", "json"],
    openapi: bool,
) -> None:
    """Serve decisions from the newest policy over HTTP, and accept the events that it learns from.

    \b
    Try it, without a broker:
      backchannel serve --store sqlite:///policy.db
      curl http://127.0.0.1:8766/v1/decide -H 'Content-Type: application/json' \\
           -d '{"text": "play hey jude", "session_id": "s1", "budget": 20}'

    The order of calls: POST /v1/decide; search for `served` and ask the strategies of `allocation`; POST /v1/rank with
    what they found; show it; POST /v1/events with the query and the impression, which need only name the
    `decision_id`, and later with the clicks. GET /openapi.json describes every field. Until there is a policy, the
    budget is split evenly among bandit.strategies, and `policy_version` is null.

    Status 202 means that an event is durable, and counts exactly once. 429 and 503 say when to send it
    again. Errors are problem documents (RFC 9457) that name the field.

    Tokens: BACKCHANNEL_TOKENS has one or more, comma-separated; callers send `Authorization: Bearer TOKEN`. Without
    it, only this machine may call; with a --host other than 127.0.0.1, a random token is generated and printed. The
    connection is not encrypted: to serve other machines, put a proxy with TLS in front.

    \b
    Exit code: 0 stopped by SIGTERM or SIGINT, after learning from everything accepted; 1 an error.
    """
    if openapi:
        from backchannel.ops.serve.application import document  # noqa: PLC0415 - not needed to serve

        print_json(document())
        return
    kafka = kafka_config(config, servers)
    config = structs.replace(config, kafka=kafka)
    Store(store).close()  # fails if the URL is invalid
    if events == "kafka":
        from backchannel.streams.kafka.topics import check_topics  # noqa: PLC0415 - an extra

        check_topics(kafka)
    log_to_stderr(log)
    plan = Plan(
        store=store,
        config=config,
        events=events,
        journal=_journal(store, journal) if events == "journal" else Path(),
        tokens=_tokens(host),
        guess_from=guess_from,
        log=log,
        host=host,
        port=port or free_port(host),
        processes=processes,
    )
    name = f"[{host}]" if ":" in host else host
    run(plan, lambda: click.echo(f"http://{name}:{plan.port}/"))
    sys.exit(0)


def _tokens(host: str) -> tuple[str, ...]:
    """Return the accepted tokens."""
    given = tuple(token for token in os.environ.get(TOKENS_VARIABLE, "").split(",") if token)
    for token in given:
        if len(token) < SHORTEST_TOKEN or not token.isascii() or " " in token:
            raise click.UsageError(
                f"{TOKENS_VARIABLE}: a token has fewer than {SHORTEST_TOKEN} characters, or a space; "
                "`openssl rand -hex 16` makes one"
            )
    if given or is_loopback(host):
        return given
    made = secrets.token_urlsafe(24)
    click.echo(f"{TOKENS_VARIABLE} is not set: call with `Authorization: Bearer {made}`")
    return (made,)


def _journal(store: str, given: Path | None) -> Path:
    if given is not None:
        return given
    url = make_url(store)
    if url.get_backend_name() == "sqlite" and url.database:
        return Path(f"{url.database}.journal")
    raise click.UsageError("--journal: name a folder on this machine for the journal, or send events to --events kafka")
