"""The service's metrics for Prometheus, added up over its processes."""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Folder in which prometheus_client's processes share their numbers; must be set before it is imported."""

ROUTES: Final = ("/v1/decide", "/v1/rank", "/v1/events", "/v1/recall", "/v1/rewrite", "/v1/policy")
_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class ServiceMetrics:
    """Counts requests and events.

    Args:
        shared: whether several processes share their numbers in the folder of FOLDER_VARIABLE.
    """

    def __init__(self, *, shared: bool) -> None:
        registry = CollectorRegistry()
        self._shared: Final = shared
        self._shown: Final = CollectorRegistry() if shared else registry
        if shared:
            MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]
        self._requests: Final = Counter(
            "backchannel_serve_requests", "Requests by path and status.", ("path", "status"), registry=registry
        )
        self._seconds: Final = Histogram(
            "backchannel_serve_seconds", "Seconds until the answer.", ("path",), buckets=_SECONDS, registry=registry
        )
        self._series: Final[dict[tuple[str, int], tuple[Counter, Histogram]]] = {}
        self._events: Final = Counter("backchannel_serve_events", "Events accepted.", registry=registry)
        self._questions: Final = Counter(
            "backchannel_serve_questions",
            "Questions to people by kind, and by what happened: asked, refused by the budget, or answered.",
            ("kind", "happened"),
            registry=registry,
        )
        self._version: Final = Gauge(
            "backchannel_serve_policy_version",
            "The served version; the oldest of all processes.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._age: Final = Gauge(
            "backchannel_serve_store_seconds",
            "Seconds since the store last answered a reader; the maximum over processes.",
            registry=registry,
            multiprocess_mode="livemax",
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = path if path in ROUTES else "other"
        series = self._series.get((known, status))
        if series is None:  # looking them up by labels costs more than counting
            series = self._requests.labels(known, str(status)), self._seconds.labels(known)
            self._series[known, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def events(self, accepted: int) -> None:
        """Count accepted events."""
        self._events.inc(accepted)

    def question(self, kind: str, happened: str) -> None:
        """Count a question."""
        self._questions.labels(kind, happened).inc()

    def policy(self, version: int | None, checked_s: float) -> None:
        """Record the version that this process serves, and how long ago the store answered its reader, s."""
        self._version.set(version or 0)
        self._age.set(checked_s)

    def text(self) -> bytes:
        """Return the metrics of all processes."""
        if self._shared:
            _forget_dead(Path(os.environ[FOLDER_VARIABLE]))
        return generate_latest(self._shown)


def _forget_dead(folder: Path) -> None:
    """Delete what killed processes have said of themselves; what they have counted stays."""
    for file in folder.glob("gauge_live*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except OSError:  # there is none, or it is somebody else's now
            file.unlink(missing_ok=True)
