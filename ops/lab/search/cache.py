"""A cache between runs for slow computations: outside the project, and safe to delete."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def folder(name: str) -> Path:
    """Return a folder of the cache, created if missing: in XDG_CACHE_HOME, or else in ~/.cache."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backchannel" / name
    found.mkdir(parents=True, exist_ok=True)
    return found


def arrays(name: str, key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays cached as `key`; if missing or damaged, compute them with `make`, and cache them."""
    file = folder(name) / f"{key}.npz"
    try:
        with np.load(file) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError):
        pass
    made = dict(make())
    # Written to another file and moved, so that nobody reads half a file.
    written = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(written, allow_pickle=False, **made)
    written.replace(file)
    return made
