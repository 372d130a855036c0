"""Goals: turns in a row of one session that serve one task."""
