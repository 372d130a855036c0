"""Human-readable times."""

from datetime import UTC, datetime


def since_epoch(ms: int) -> str:
    """Format a time in ms since the Unix epoch as UTC, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def learned_up_to(watermark: int) -> str:
    """Say up to which event time, ms since the Unix epoch, a version has learned; 0: nothing yet."""
    return f"learned up to {since_epoch(watermark)}" if watermark else "nothing learned yet"
