"""The probability that a query rephrases the preceding one in its session."""
