"""What a check of `backchannel health` is."""

from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from backchannel.streams.config import Bounds
from backchannel.streams.monitoring.vitals import BrokerVitals, StoreVitals

Status: TypeAlias = Literal["ok", "warn", "critical"]
STATUSES: Final[tuple[Status, ...]] = ("ok", "warn", "critical")
"""From good to bad."""


class Check(Struct, frozen=True):
    """The result of one check.

    Attributes:
        name: name of the check.
        status: the verdict.
        summary: what was found, in one line.
        remedy: what to do about it; empty if there is nothing to do.
        details: the numbers, for programs.
    """

    name: str
    status: Status
    summary: str
    remedy: str = ""
    details: dict[str, Any] = {}


class Facts(Struct, frozen=True):
    """What the store and the brokers answered.

    Attributes:
        now: wall-clock time, ms since the Unix epoch.
        store: the store's answer, or the reason for its absence; "" if it is said elsewhere.
        brokers: the brokers' answer, or likewise the reason for its absence.
    """

    now: int
    store: StoreVitals | str
    brokers: BrokerVitals | str


def unknown(name: str, **answers: object) -> Check:
    """Return the check of something that cannot be known without the answers of `store` or `brokers`; see `Facts`."""
    silent = {"store": "the store does not answer", "brokers": "the brokers do not answer"}
    said = [
        f"{silent[source]} ({reason})" if reason else silent[source]
        for source, reason in answers.items()
        if isinstance(reason, str)
    ]
    return Check(name, "warn", f"unknown: {' and '.join(said)}")


def bounded(name: str, value: float, bounds: Bounds, *, summary: str, remedy: str, details: dict[str, Any]) -> Check:
    """Return the check of a value that has two bounds."""
    status = STATUSES[sum(value > bound for bound in bounds)]
    return Check(name, status, summary, remedy if status != "ok" else "", details)
