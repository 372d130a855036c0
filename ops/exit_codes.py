"""Exit codes, with one meaning each. 0 is success; 2 is click's: the command or the configuration is wrong."""

from typing import Final

FAILED: Final = 1
"""Something does not work, or is not there: a file, a store, a version, a broker."""
INCOMPLETE: Final = 3
"""The command did its work; part of what it prints needs a look: invalid lines, warnings, a log that cannot tell."""
