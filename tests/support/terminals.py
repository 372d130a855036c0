"""Terminals to run commands on."""

from typing import Final

TERMINAL: Final = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
"""Environment in which output counts as a terminal's."""
