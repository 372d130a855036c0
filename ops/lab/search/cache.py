"""Where what takes long to compute is kept between runs: outside the project, and safe to delete."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def folder(name: str) -> Path:
    """Return a folder of the cache, made if it is not there: in XDG_CACHE_HOME, or else in ~/.cache."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backchannel" / name
    found.mkdir(parents=True, exist_ok=True)
    return found


def arrays(name: str, key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays kept as `key`; those of `make`, kept from now on, where there are none or they are damaged."""
    file = folder(name) / f"{key}.npz"
    try:
        with np.load(file) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError):
        pass
    made = dict(make())
    # Written beside it and moved, so that nobody reads half a file.
    written = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(written, allow_pickle=False, **made)
    written.replace(file)
    return made
