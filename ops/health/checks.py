"""The verdicts of `backchannel health`: pure functions from facts and bounds to checks."""

from collections.abc import Callable, Collection
from math import inf
from typing import Final

from msgspec import Struct, structs

from backchannel.ops.health import records
from backchannel.ops.health.check import STATUSES, Check, Facts, Status, bounded, unknown
from backchannel.streams.clock import since_epoch
from backchannel.streams.config import Config
from backchannel.streams.monitoring.vitals import BrokerVitals, StoreVitals, WorkerState, unread
from backchannel.streams.turns.position import BEGINNING

OF_WORKERS: Final = ("broker", "topics", "lag", "watermarks", "workers", "commits")
"""Checks of things that only workers have."""

_FREE: Final = (1e9, 1e8)
"""Bytes free on the store's disk from which down to warn, and from which down it is critical."""

FORGOTTEN_MS: Final = 3_600_000
"""Age after which a silent worker is no longer reported, ms."""


class Known(Struct, frozen=True):
    """Facts if both the store and the brokers answered."""

    now: int
    store: StoreVitals
    brokers: BrokerVitals
    unread: dict[tuple[str, int], int]


def worst(checks: list[Check]) -> Status:
    """Return the worst status among `checks`; ok if there are none."""
    return max((check.status for check in checks), key=STATUSES.index, default="ok")


def judge(facts: Facts, config: Config, names: Collection[str] = ()) -> list[Check]:
    """Return the checks that are named, or all of them, in the order of `CHECKS`.

    Why there is no answer is said by the checks of broker and store, or, without these, by all that need it.
    """
    asked = [name for name in CHECKS if name in names or not names]
    idle = OF_WORKERS if _without_workers(facts, config) else ()
    brief = Facts(
        facts.now,
        "" if isinstance(facts.store, str) and "store" in asked else facts.store,
        "" if isinstance(facts.brokers, str) and "broker" in asked else facts.brokers,
    )
    return [
        Check(name, "ok", "not needed: no worker has ever used this store")
        if name in idle
        else CHECKS[name](facts if name in ("broker", "store") else brief, config)
        for name in asked
    ]


def _without_workers(facts: Facts, config: Config) -> bool:
    """Return whether the store was filled without workers (by `run`, the demo or the service), and no broker
    answers.
    """
    if isinstance(facts.store, str) or not isinstance(facts.brokers, str):
        return False
    sources = {one.source for one in facts.store.partitions}
    return not facts.store.workers and bool(sources) and config.kafka.source not in sources


def _broker(facts: Facts, config: Config) -> Check:
    if isinstance(facts.brokers, str):
        remedy = "start the brokers, or correct kafka.servers; running workers wait, and resume by themselves"
        return Check("broker", "critical", facts.brokers, remedy)
    return Check("broker", "ok", f"Kafka at {config.kafka.servers} answers")


def _topics(facts: Facts, _: Config) -> Check:
    if isinstance(facts.brokers, str):
        return unknown("topics", brokers=facts.brokers)
    if facts.brokers.fault:
        return Check("topics", "critical", facts.brokers.fault, "see `backchannel topics --help`")
    return Check("topics", "ok", f"set up correctly, {facts.brokers.partitions} partitions each")


def _lag(facts: Facts, config: Config) -> Check:
    known = _both(facts, config)
    if known is None:
        return unknown("lag", brokers=facts.brokers, store=facts.store)
    newest = {
        (topic, partition.number): at.newest
        for partition in known.store.partitions
        if partition.source == config.kafka.source
        for topic, at in partition.position.topics.items()
    }
    ages = {log: _behind(known.now, newest.get(log, BEGINNING)) for log, records in known.unread.items() if records}
    details = {
        "records": sum(known.unread.values()),
        "logs": [
            {"topic": topic, "partition": number, "records": records, "seconds": ages.get((topic, number), 0.0)}
            for (topic, number), records in sorted(known.unread.items())
        ],
    }
    if not ages:
        return Check("lag", "ok", "everything is read", details=details)
    (topic, number), seconds = max(ages.items(), key=lambda age: inf if age[1] is None else age[1])
    summary = f"{details['records']:,} records unread, {topic}[{number}] is "
    summary += "not read yet" if seconds is None else f"{_age(seconds)} behind"
    remedy = "add workers, up to one per partition, or find out why they are slow. Replayed events count as old"
    return bounded("lag", seconds or 0.0, config.health.lag_s, summary=summary, remedy=remedy, details=details)


def _watermarks(facts: Facts, config: Config) -> Check:
    known = _both(facts, config)
    if known is None:
        return unknown("watermarks", brokers=facts.brokers, store=facts.store)
    own = {one.number: one.position.watermark for one in known.store.partitions if one.source == config.kafka.source}
    ages = {number: _behind(known.now, watermark) for number, watermark in own.items()}
    details = {"partitions": [{"partition": number, "seconds": age} for number, age in sorted(ages.items())]}
    # A partition that is read to its end cannot lag.
    reading = {number for (_, number), records in known.unread.items() if records}
    late = [(age, number) for number, age in ages.items() if number in reading and age is not None]
    if not late:
        return Check("watermarks", "ok", f"{len(own)} partitions, none is behind", details=details)
    seconds, number = max(late)
    summary = f"the oldest is in partition {number}, {_age(seconds)} ago"
    remedy = "a topic that is far behind the others in event time holds back the watermark, and so all turns"
    warning, critical = config.health.lag_s
    bounds = warning + config.turns.lateness_s, critical + config.turns.lateness_s
    return bounded("watermarks", seconds, bounds, summary=summary, remedy=remedy, details=details)


def _workers(facts: Facts, config: Config) -> Check:
    if isinstance(facts.store, str):
        return unknown("workers", store=facts.store)
    warning, critical = (1000 * seconds for seconds in config.health.heartbeat_s)
    alive = [one for one in facts.store.workers if facts.now - one.seen < warning]
    silent = [one for one in facts.store.workers if warning <= facts.now - one.seen < FORGOTTEN_MS]
    details = {
        "workers": [
            {"name": one.name, "version": one.version, "rate": one.rate, "seconds": (facts.now - one.seen) / 1000}
            for one in alive + silent
        ]
    }
    rate = sum(one.rate for one in alive)
    summary = f"{len(alive)} alive, {rate:,.0f} events/s"
    if silent:
        longest = min(silent, key=lambda one: one.seen)
        summary += f"; {longest.name} has been silent for {_age((facts.now - longest.seen) / 1000)}"
        if len(silent) > 1:
            summary += f", and {len(silent) - 1} more"
    orphaned = _unowned(facts, alive, config)
    if orphaned:
        summary += f"; partitions without a worker: {', '.join(map(str, orphaned))}"
    versions = sorted({one.version for one in alive})
    if len(versions) > 1:
        summary += f"; versions {', '.join(versions)}"
    dead = not any(facts.now - one.seen < critical for one in facts.store.workers)
    if dead or orphaned:
        return Check(
            "workers",
            "critical",
            summary,
            "start `backchannel worker`, and find out why the last one ended or hangs",
            details,
        )
    if silent:
        remedy = "it was killed, or hangs: see its log, and kill it if it is still running"
        remedy += "; the others take over its partitions" if alive else "; start another worker"
        return Check("workers", "warn", summary, remedy, details)
    return Check("workers", "ok", summary, "", details)


def _unowned(facts: Facts, alive: list[WorkerState], config: Config) -> list[int]:
    """Return the partitions that have unread records but no worker."""
    known = _both(facts, config)
    if known is None or not alive:
        return []
    owned = {number for one in alive for number in one.partitions}
    return sorted({number for (_, number), records in known.unread.items() if records} - owned)


def _commits(facts: Facts, config: Config) -> Check:
    if isinstance(facts.store, str):
        return unknown("commits", store=facts.store)
    last = max((one.committed for one in facts.store.workers if one.committed is not None), default=None)
    known = _both(facts, config)
    waiting = sum(known.unread.values()) if known else 0
    if last is None:
        return Check(
            "commits",
            "warn" if waiting else "ok",
            "no worker has committed yet",
            "see the workers' logs" if waiting else "",
        )
    seconds = (facts.now - last) / 1000
    summary = f"the last one {_age(seconds)} ago"
    details = {"seconds": seconds, "unread": waiting}
    if not waiting:
        return Check("commits", "ok", summary, "", details)
    remedy = "see the workers' logs: they are waiting for the store or the dead-letter topic, or hang"
    return bounded("commits", seconds, config.health.commit_s, summary=summary, remedy=remedy, details=details)


def _policy(facts: Facts, config: Config) -> Check:
    if isinstance(facts.store, str):
        return unknown("policy", store=facts.store)
    served, newest = facts.store.served, facts.store.newest
    publisher = "the worker with partition 0 publishes: see its log"
    if facts.store.fault is not None:
        remedy = "readers keep the last good version: run `backchannel snapshots rollback`, or restart the publisher"
        return Check("policy", "critical", f"the version to serve is damaged: {facts.store.fault}", remedy)
    if served is None or newest is None:
        return Check("policy", "warn", "no version is served yet", publisher)
    summary = f"version {served.version} is served, {_age((facts.now - served.created) / 1000)} old"
    if served.watermark:
        summary += f", learned up to {since_epoch(served.watermark)}"
    # The age of the newest version does not matter while there is nothing new to publish.
    waiting = (facts.now - newest.created) / 1000 if facts.store.unpublished else 0.0
    details = {
        "version": served.version,
        "watermark": served.watermark,
        "newest": newest.version,
        "verdict": newest.verdict,
        "hold": facts.store.head.hold,
        "withheld": facts.store.withheld,
        "canary": newest.trial.share if newest.trial else None,
        "seconds": waiting,
    }
    if newest.verdict == "canary" and newest.trial:
        summary += f"; a canary decides {newest.trial.share:.0%} of the queries: {newest.reason}"
    if waiting > config.health.policy_s[0]:
        summary += f"; changes have been waiting for {_age(waiting)}"
    check = bounded("policy", waiting, config.health.policy_s, summary=summary, remedy=publisher, details=details)
    if facts.store.head.hold is not None:
        held, remedy = f"held: {facts.store.head.hold}", "`backchannel snapshots release` ends this"
    elif newest.verdict in ("hold", "warn"):
        held = f"the gate's verdict on version {newest.version} is {newest.verdict}: {newest.reason}"
        remedy = "find out what changed, and whether the gate is right"
    else:
        return check
    if facts.store.withheld is not None:
        waiting_for = "a newer version" if facts.store.head.hold is not None else "a newer bandit policy"
        held = f"{waiting_for} has been withheld for {_age((facts.now - facts.store.withheld) / 1000)}; {held}"
    status = max(check.status, "warn", key=STATUSES.index)
    return structs.replace(check, status=status, summary=f"{summary}; {held}", remedy=remedy)


def _store(facts: Facts, config: Config) -> Check:
    if isinstance(facts.store, str):
        remedy = (
            "do what it says, start or unlock it, or correct --store; workers wait, and readers keep their last good "
            "policy. A new store is filled by `backchannel worker` or `run`"
        )
        return Check("store", "critical", facts.store, remedy)
    size, free = facts.store.bytes / 1e9, facts.store.free
    summary = f"answers, {_bytes(facts.store.bytes)}"
    details = {"bytes": facts.store.bytes, "free": free}
    remedy = "make room, or shorten memory.half_life_days or the retention of versions"
    if free is not None and free < _FREE[0]:
        summary += f"; {_bytes(free)} are free on its disk: when it is full, nothing is learned, and events are refused"
        return Check("store", "critical" if free < _FREE[1] else "warn", summary, remedy, details)
    return bounded("store", size, config.health.store_gb, summary=summary, remedy=remedy, details=details)


def _drift(facts: Facts, config: Config) -> Check:
    if isinstance(facts.store, str):
        return unknown("drift", store=facts.store)
    since = facts.now - 3_600_000 * config.health.alarm_h
    recent = [alarm for alarm in facts.store.alarms if alarm.raised >= since]
    rates = facts.store.rates
    details = {"alarms": len(recent), "rates": rates}
    if not recent:
        summary = f"no alarm in {config.health.alarm_h:g} hours" + (f"; {rates}" if rates else "")
        return Check("drift", "ok", summary, details=details)
    newest = recent[0]
    rate = newest.measure.replace("_", " ") + (f" of {newest.strategy}" if newest.strategy else "")
    summary = f"{rate} went from {newest.before:.3g} to {newest.after:.3g} at {since_epoch(newest.since)}"
    if len(recent) > 1:
        summary += f"; {len(recent) - 1} more"
    remedy = "find out what changed then: a deployment, the catalogue, the season. The bandit adapts by itself"
    return Check("drift", "warn", summary, remedy, details)


CHECKS: Final[dict[str, Callable[[Facts, Config], Check]]] = {
    "broker": _broker,
    "topics": _topics,
    "lag": _lag,
    "watermarks": _watermarks,
    "workers": _workers,
    "commits": _commits,
    "policy": _policy,
    "dead-letters": records.dead_letters,
    "late-events": records.late,
    "orphans": records.orphans,
    "late-clicks": records.late_clicks,
    "losses": records.losses,
    "names": records.names,
    "store": _store,
    "drift": _drift,
}
"""The checks, by name."""


def _both(facts: Facts, config: Config) -> Known | None:
    if isinstance(facts.store, str) or isinstance(facts.brokers, str):
        return None
    return Known(facts.now, facts.store, facts.brokers, unread(facts.store, facts.brokers, config.kafka.source))


def _behind(now: int, time: int) -> float | None:
    return max(now - time, 0) / 1000 if time > BEGINNING else None


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB"
