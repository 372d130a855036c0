"""Types of arguments that name something to read. Importing them costs nothing but click."""

import os
from errno import ENOENT
from pathlib import Path
from typing import Any

import click


class InputPath(click.Path):
    """The path of something to read. A missing one is an error like any other missing file, with the same exit code."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.

        Raises:
            FileNotFoundError: there is nothing at the path.
        """
        if not Path(value).exists():
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), os.fspath(value))
        return super().convert(value, param, ctx)


input_file = InputPath(dir_okay=False, path_type=Path)
input_folder = InputPath(file_okay=False, path_type=Path)
