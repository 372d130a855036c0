"""`backchannel taught`: lists, shows and undoes what people taught."""

import time
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backchannel.agents.taught.rules import TaughtRule
from backchannel.agents.taught.serving import Taught
from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, json_option, opened_store, store_option
from backchannel.ops.terminal import console, print_json
from backchannel.schemas.events import Like, LikeAttribute, Means, Prefer, Rule
from backchannel.streams.clock import since_epoch
from backchannel.streams.config import Config
from backchannel.streams.snapshots.signing import accepted_keys
from backchannel.streams.snapshots.teachings import DROPPED, NO_CHANGE, Teachings, all_rules, read
from backchannel.streams.store.ledger import Ledger

_WIDTH: Final = 160


@click.group(cls=Group)
def taught() -> None:
    """List, show and undo what people taught."""


@taught.command("list")
@click.option("--history", is_flag=True, help="List the rules themselves, also those undone or expired: an export.")
@store_option
@json_option
def list_taught(*, history: bool, store: str, as_json: bool) -> None:
    """List who has rules: the number that hold, and the number undone or expired.

    Of what was said about the same thing, only the latest is kept, so a rule that was taught anew is listed once.
    """
    now = _now()
    with opened_store(store) as opened:
        with opened.read() as connection:
            known = all_rules(connection)
        dropped = Ledger(opened, []).counts().get(DROPPED, 0)
    if history:
        _show_history(known, now, as_json=as_json)
        return
    counts = {
        owner: {"holding": (holding := sum(one.holds(now) for one in rules)), "ended": len(rules) - holding}
        for owner, rules in known.items()
    }
    if as_json:
        print_json({"owners": counts, "dropped": dropped})
        return
    if not counts:
        click.echo("nothing was taught yet")
        return
    table = Table("who", "rules", "ended", box=SIMPLE_HEAD, pad_edge=False)
    for owner, count in counts.items():
        table.add_row(owner, f"{count['holding']:,}", f"{count['ended']:,}")
    console(_WIDTH).print(table)
    if dropped:
        click.echo(f"{dropped:,} rules made room for later ones of the same owner: taught.most bounds them")


@taught.command("show")
@click.option("--user", help="A user_id.")
@click.option("--group", help="A group_id, such as that of the user's household.")
@store_option
@config_option
@json_option
def show(*, user: str | None, group: str | None, store: str, config: Config, as_json: bool) -> None:
    """Show the rules that hold for a user: the user's own, then the group's, then everyone's, the latest first."""
    faults: list[str] = []
    keys = accepted_keys(config.snapshots.signing_key)
    with opened_store(store) as opened, opened.read() as connection:
        rows, _ = read(connection, {}, NO_CHANGE, keys, faults.append)
    found = Taught(rows).rules(user, group)
    for fault in faults:
        click.echo(fault, err=True)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("nothing that was taught holds here")
        return
    table = Table("rule", "for", "taught", "until", "asked", "event", box=SIMPLE_HEAD, pad_edge=False)
    for one in found:
        scope = f"{one.scope}, by {one.by}" if one.by else one.scope
        until = since_epoch(one.expires) if one.expires else ""
        table.add_row(rule_words(one.rule), scope, since_epoch(one.ts), until, "yes" if one.asked else "", one.event_id)
    console(_WIDTH).print(table)


@taught.command("undo")
@click.argument("event_id", metavar="EVENT")
@store_option
@config_option
def undo(event_id: str, store: str, config: Config) -> None:
    """Undo the rule that EVENT taught, as `show` names it. Readers cease to serve it within a second."""
    with opened_store(store) as opened:
        undone = Teachings(opened, config.taught, config.turns.fold, config.snapshots.signing_key).undo(
            event_id, _now()
        )
    if undone is None:
        raise click.ClickException(f"no rule that holds was taught by event {event_id!r}: `backchannel taught show`")
    click.echo(f"undone: {rule_words(undone.rule)}")


def _show_history(known: dict[str, list[TaughtRule]], now: int, *, as_json: bool) -> None:
    if as_json:
        print_json(known)
        return
    table = Table("who", "rule", "taught", "state", "event", box=SIMPLE_HEAD, pad_edge=False)
    for owner, rules in known.items():
        for one in rules:
            state = "holds" if one.holds(now) else "undone" if one.undone else f"expired {since_epoch(one.expires)}"
            table.add_row(owner, rule_words(one.rule), since_epoch(one.ts), state, one.event_id)
    console(_WIDTH).print(table)


def rule_words(rule: Rule) -> str:
    """Return a rule in words."""
    if isinstance(rule, Means):
        return f"{rule.source!r} means {rule.target!r}"
    if isinstance(rule, Prefer):
        return f"{rule.entity_id!r} first for {rule.query!r}"
    if isinstance(rule, Like):
        return f"likes {rule.entity_id!r} for {rule.query!r}"
    if isinstance(rule, LikeAttribute):
        return f"likes {rule.feature}={rule.value}"
    return f"never {rule.entity_id!r}"


def _now() -> int:
    return time.time_ns() // 1_000_000
