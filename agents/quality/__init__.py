"""The quality of answers over time, and its changes."""
