"""Which component failed first in a turn."""
