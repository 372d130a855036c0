"""What the tests share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about us. On CI the examples are always the same ones: new
# ones are sought where somebody looks.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def public_log() -> Callable[[str], Path]:
    """Return a function that finds a public log by its path within the data folder, or skips the test, saying why.

    The folder is ../shared/data, seen from the repository, or else what BACKCHANNEL_DATA names.
    """
    folder = _BESIDE if _BESIDE.is_dir() else Path(os.environ.get("BACKCHANNEL_DATA", _BESIDE))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no {folder / name}: set BACKCHANNEL_DATA to the folder that holds {name}")
        return folder / name

    return find
