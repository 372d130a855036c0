"""How probable it is that a query rephrases the one before it in its session."""
