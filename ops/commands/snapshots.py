"""`backchannel snapshots`: list, compare, roll back, pin and copy policy versions."""

import gzip
import time
from pathlib import Path
from typing import Final

import click
import msgspec
from msgspec import Struct
from rich.table import Table
from sqlalchemy import Connection

from backchannel.ops.commands.differences import differences, loaded
from backchannel.ops.groups import Group
from backchannel.ops.options import config_option, json_option, opened_store, store_option
from backchannel.ops.paths import input_file
from backchannel.ops.terminal import console, print_json, require_writable
from backchannel.schemas.snapshot import Snapshot
from backchannel.streams.clock import since_epoch
from backchannel.streams.config import Config
from backchannel.streams.monitoring.trends import read_rates
from backchannel.streams.snapshots import archive, versions
from backchannel.streams.snapshots.signing import signing_key
from backchannel.streams.snapshots.versions import CorruptPolicyError

_WIDTH: Final = 130


class Listed(Struct, frozen=True):
    """A version, as `list` and `show` print it.

    Attributes:
        version: number of the version.
        served: whether readers serve it.
        pinned: whether it is kept indefinitely.
        fault: why readers refuse it; None if it is intact.
        header: see `Snapshot`; None if it cannot be read.
    """

    version: int
    served: bool
    pinned: bool
    fault: str | None
    header: Snapshot | None


@click.group("snapshots", cls=Group)
def snapshots() -> None:
    """List, compare, roll back, pin and copy policy versions.

    \b
    backchannel snapshots list
    backchannel snapshots diff 41 57
    backchannel snapshots rollback --to 41     serve version 41 until `release`
    backchannel snapshots release              serve the newest version again
    """


@snapshots.command("list")
@store_option
@config_option
@json_option
def list_versions(store: str, config: Config, *, as_json: bool) -> None:
    """List the retained versions, newest first."""
    with opened_store(store) as opened, opened.read() as connection:
        head = versions.current(connection)
        listed = [_listed(connection, version, _key(config)) for version in versions.versions(connection)]
    if as_json:
        print_json({"hold": head.hold, "versions": listed})
        return
    table = Table("version", "made", "learned up to", "rows", "verdict", "", box=None, pad_edge=False)
    table.columns[0].justify = table.columns[3].justify = "right"
    for one in listed:
        marks = [mark for mark, on in (("served", one.served), ("pinned", one.pinned), ("refused", one.fault)) if on]
        header = one.header
        cells = ("", "", "", "")
        if header is not None:
            count = f"{sum(header.rows.values()):,}"
            cells = (since_epoch(header.created), _watermark(header), count, _verdict(header))
        table.add_row(str(one.version), *cells, ", ".join(marks))
    console(_WIDTH).print(table)
    for fault in dict.fromkeys(one.fault for one in listed if one.fault):
        refused = ", ".join(str(one.version) for one in listed if one.fault == fault)
        click.echo(f"Refused, as readers would: {refused}: {fault}")
    if head.hold is not None:
        click.echo(f"Later versions are withheld: {head.hold}. `backchannel snapshots release` ends this.")


@snapshots.command()
@click.argument("version", type=int, required=False)
@store_option
@config_option
@json_option
def show(version: int | None, store: str, config: Config, *, as_json: bool) -> None:
    """Describe VERSION, by default the one that readers serve. Verifies the checksum of its rows."""
    with opened_store(store) as opened, opened.read() as connection:
        head = versions.current(connection)
        number = _existing(connection, head.version if version is None else version)
        one = _listed(connection, number, _key(config), rows=True)
        rates = read_rates(connection, one.header.watermark) if one.header else None
        settings = versions.sections_with_settings(connection, number)
    if as_json:
        print_json({"hold": head.hold, **msgspec.structs.asdict(one), "rates": rates})
        return
    served = "served by readers" if one.served else "not served"
    facts = [("version", f"{one.version}, {served}{', pinned' if one.pinned else ''}")]
    if one.served and head.hold:
        facts.append(("hold", head.hold))
    facts.append(("rows", one.fault or "complete: the checksum matches"))
    if header := one.header:
        partitions = sum(map(len, header.positions.values()))
        facts += [
            ("made", since_epoch(header.created) + (f", from version {header.parent}" if header.parent else "")),
            ("learned up to", f"{_watermark(header)}, partitions: {partitions}"),
            ("verdict", f"{header.verdict}: {header.reason}" if header.verdict else "not judged"),
            *_trial(header),
            *([("quality", f"until then, {rates}")] if rates else []),
            ("configuration", header.fingerprint),
            ("checksum", header.checksum),
            ("signed", "yes" if header.seal else "no"),
            *((name, f"{count - (name in settings):,} rows") for name, count in header.rows.items()),
        ]
        if header.imported:
            facts.append(("imported", "from another store"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for fact in facts:
        table.add_row(*fact)
    console(_WIDTH).print(table)


@snapshots.command()
@click.argument("older", type=int)
@click.argument("newer", type=int)
@click.option(
    "--examples", type=click.IntRange(0), default=10, show_default=True, help="Examples of each kind, at most."
)
@click.option("--budget", type=click.IntRange(1), default=100, show_default=True, help="Number of candidates to draw.")
@store_option
@config_option
@json_option
def diff(*, older: int, newer: int, examples: int, budget: int, store: str, config: Config, as_json: bool) -> None:
    """Report what changed from version OLDER to version NEWER: strategies, rewrites, best entities."""
    with opened_store(store) as opened, opened.read() as connection:
        headers = [_header(connection, _existing(connection, version), _key(config)) for version in (older, newer)]
        try:
            found = differences(connection, *headers, budget=budget)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if as_json:
        print_json(found)
        return
    for sentence in found.words(examples):
        click.echo(sentence)


@snapshots.command()
@click.option("--to", "version", type=int, required=True, help="Version to serve.")
@click.option("--reason", default="", help="Reason, shown by `list`, `show` and `health`.")
@store_option
@config_option
def rollback(version: int, reason: str, store: str, config: Config) -> None:
    """Serve an earlier version, and no later one until `release`.

    Readers switch to it at their next poll. Learning goes on and new versions are written, but not served.
    """
    with opened_store(store) as opened, opened.write() as connection:
        versions.current(connection, lock=True)
        header = _header(connection, _existing(connection, version), _key(config))
        if not versions.intact(connection, header, _key(config)):
            raise CorruptPolicyError(f"version {version} is damaged, so readers would refuse it: choose another")
        loaded(header, {name: versions.section(connection, version, name) for name in header.rows})
        hold = f"rolled back to version {version} at {since_epoch(_now())}" + (f", because {reason}" if reason else "")
        versions.serve(connection, version, hold)
    click.echo(f"Readers now serve version {version}. `backchannel snapshots release` ends the rollback.")
    if header.trial and header.trial.share:
        click.echo(
            f"It has a policy on trial, which decides {header.trial.share:.0%} of the queries as long as this version "
            "is served. `backchannel snapshots list` shows versions without one."
        )


@snapshots.command()
@store_option
@config_option
def release(store: str, config: Config) -> None:
    """End a rollback: serve the newest version, and later ones as they are published."""
    with opened_store(store) as opened, opened.write() as connection:
        head = versions.current(connection, lock=True)
        if head.hold is None or head.version is None:
            raise click.ClickException("there is no rollback: readers serve new versions as they are published")
        listed = (_listed(connection, one, _key(config)) for one in versions.versions(connection))
        version = next((one.version for one in listed if one.header), head.version)
        versions.serve(connection, version, hold=None)
    click.echo(f"Readers now serve version {version}, and later ones as they are published.")


@snapshots.command()
@click.argument("version", type=int)
@click.option("--off", is_flag=True, help="Unpin it.")
@store_option
def pin(version: int, store: str, *, off: bool) -> None:
    """Keep VERSION, however many versions follow."""
    with opened_store(store) as opened, opened.write() as connection:
        versions.pin(connection, _existing(connection, version), pinned=not off)
    click.echo(f"Version {version} is {'no longer ' if off else ''}pinned.")


@snapshots.command("export")
@click.argument("version", type=int)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@store_option
@config_option
def export_version(version: int, file: Path, store: str, config: Config) -> None:
    """Write VERSION to FILE: header, signature and rows, as gzipped JSON lines."""
    require_writable(file)
    with opened_store(store) as opened, opened.read() as connection:
        _existing(connection, version)
        whole = file.with_name(f"{file.name}.part")
        try:
            with gzip.open(whole, "wb") as lines:
                rows = archive.write(connection, version, lines.write, _key(config))
            whole.replace(file)
        finally:
            whole.unlink(missing_ok=True)
    click.echo(f"Wrote version {version}, {rows:,} rows, to {file}.")


@snapshots.command("import")
@click.argument("file", type=input_file)
@store_option
@config_option
def import_version(file: Path, store: str, config: Config) -> None:
    """Publish the version in FILE, written by `export`, to a store into which nothing has been learned.

    If a signing key is configured, FILE must be signed with it. A missing store is created.
    """
    with opened_store(store, create=True) as opened, gzip.open(file, "rb") as lines:
        archived = archive.read(archive.bounded_lines(lines.readline), _key(config))
        loaded(archived.header, archived.sections)
        made = opened.transact(lambda connection: archive.publish(connection, archived, _now(), _key(config)))
    click.echo(f"Readers now serve version {made.version}; it was version {archived.header.version} in its old store.")


def _listed(connection: Connection, version: int, key: bytes, *, rows: bool = False) -> Listed:
    served = versions.current(connection).version == version
    pinned = version in versions.pinned(connection)
    try:
        header = _header(connection, version, key)
    except CorruptPolicyError as error:
        return Listed(version, served, pinned, str(error), None)
    fault = None
    if rows and not versions.intact(connection, header, key):
        fault = "its rows do not match the checksum in its header"
    return Listed(version, served, pinned, fault, header)


def _existing(connection: Connection, version: int | None) -> int:
    found = versions.versions(connection)
    if not found:
        raise click.ClickException("the store has no versions yet: `backchannel run` or a worker publishes the first")
    if version not in found:
        raise click.ClickException(
            f"version {version} is not in the store; `backchannel snapshots list` shows those that are"
        )
    return version


def _header(connection: Connection, version: int, key: bytes) -> Snapshot:
    header = versions.header(connection, version, key)
    assert header is not None
    return header


def _key(config: Config) -> bytes:
    return signing_key(config.snapshots.signing_key)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _watermark(header: Snapshot) -> str:
    return since_epoch(header.watermark) if header.watermark else "nothing yet"


def _verdict(header: Snapshot) -> str:
    share = header.trial.share if header.trial else 0.0
    return f"{header.verdict}, {share:.0%}" if share else header.verdict or ""


def _trial(header: Snapshot) -> list[tuple[str, str]]:
    """Return the facts of the trial in progress, or of the one that was lost."""
    trial = header.trial
    if trial is None:
        return []
    state = f"decides {trial.share:.0%} of the queries"
    if trial.until is not None:
        state = f"lost: decides nothing, and is tried again from {since_epoch(trial.until)} on"
    facts = [
        ("canary", state),
        ("on trial", f"since version {trial.number}, from {since_epoch(trial.began)} on"),
        ("evidence", f"{trial.turns:,.0f} decisions with {trial.rewards:,.0f} rewards"),
    ]
    if trial.gain:
        facts.append(("gain", f"{trial.gain.value:+.1%}, from {trial.gain.low:+.1%} to {trial.gain.high:+.1%}"))
    return facts
