"""Human-readable times."""

from datetime import UTC, datetime


def since_epoch(ms: int) -> str:
    """Format a time in ms since the Unix epoch as UTC, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
