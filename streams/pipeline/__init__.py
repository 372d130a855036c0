"""From turns to published versions: learning, commits, publishing, drift alarms, corrections and erasure."""
