"""How well the answers do over time, and when that changes."""
