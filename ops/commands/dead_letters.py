"""`backchannel dead-letters`: read dead letters, and replay those that have become valid."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

import click

from backchannel.ops.exit_codes import INCOMPLETE
from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, json_option, kafka_config, servers_option
from backchannel.ops.terminal import print_json
from backchannel.streams.clock import since_epoch
from backchannel.streams.config import Config
from backchannel.streams.kafka.dead_letters import Letter, read, replay

SHOWN_BYTES = 200
"""Number of bytes of a value to show."""

SHOWN_REASONS = 20
"""Number of reasons to show."""


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Read the records that were not valid events, and replay them once the cause is gone."""


@dead_letters.command("list")
@config_option
@servers_option
@click.option("--last", type=click.IntRange(0), default=10, show_default=True, help="Number of letters to show.")
@json_option
def list_(config: Config, servers: str | None, last: int, as_json: bool) -> None:
    """Count the dead letters by reason, and show the last ones."""
    kafka = kafka_config(config, servers)
    letters = asyncio.run(_collect(read(kafka)))
    reasons = Counter(letter.reason for letter in letters)
    newest = sorted(letters, key=lambda letter: letter.written)[len(letters) - min(last, len(letters)) :]
    if as_json:
        print_json(
            {
                "letters": len(letters),
                "reasons": dict(reasons.most_common()),
                "last": [{**_place(letter), "value": _text(letter.value, None)} for letter in newest],
            }
        )
        return
    click.echo(f"{len(letters):,} dead letters")
    for reason, count in reasons.most_common(SHOWN_REASONS):
        click.echo(f"{count:>9,}  {reason}")
    if len(reasons) > SHOWN_REASONS:  # some quote a value, and are different in each record
        click.echo(f"and {len(reasons) - SHOWN_REASONS:,} other reasons")
    for letter in newest:
        place = f"{letter.topic}[{letter.partition}] offset {letter.offset}"
        click.echo(f"\n{since_epoch(letter.written)}  {place}: {letter.reason}\n  {_text(letter.value, SHOWN_BYTES)}")


@dead_letters.command("replay")
@config_option
@servers_option
@click.option("--again", is_flag=True, help="Begin with the first letter, not after those already replayed.")
@json_option
def replay_(config: Config, servers: str | None, again: bool, as_json: bool) -> None:
    """Send the dead letters that are valid events now back to their topics.

    Those that are still invalid are counted by reason, and stay in the topic; `--again` tries them once more. Workers
    count events that come after their turns closed as late: replay soon, or replay the topics into a new store.

    \b
    Exit code: 0 all are valid now; 3 some are not; 1 an error.
    """
    kafka = kafka_config(config, servers)
    ahead_ms, now = round(1000 * config.turns.max_ahead_s), time.time_ns() // 1_000_000
    done = asyncio.run(replay(kafka, config.events, ahead_ms, now, again=again))
    if as_json:
        print_json(done)
    else:
        click.echo(f"replayed: {done.sent:,}; still invalid: {sum(done.left.values()):,}")
        for reason, count in done.left.items():
            click.echo(f"{count:>9,}  {reason}")
    sys.exit(INCOMPLETE if done.left else 0)


async def _collect(letters: AsyncIterator[Letter]) -> list[Letter]:
    return [letter async for letter in letters]


def _place(letter: Letter) -> dict[str, object]:
    return {
        "written": letter.written,
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": _text(letter.key, None),
    }


def _text(value: bytes | None, most: int | None) -> str | None:
    return (
        None if value is None else value[:most].decode(errors="replace") + ("…" if value[most or len(value) :] else "")
    )
