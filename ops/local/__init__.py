"""Real servers for development and tests, as local processes."""
