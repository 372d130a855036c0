"""Files that commands write."""

from pathlib import Path
from tempfile import TemporaryFile


def require_writable(file: Path) -> None:
    """Find out before long work, and not after it, that its result cannot be written. Nothing is left behind.

    Raises:
        OSError: as writing would; it names `file`.
    """
    try:
        if file.is_file():
            file.open("ab").close()
        elif not file.exists():
            # Trying is surer than asking: permissions do not hold for root, nor on every file system.
            TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
