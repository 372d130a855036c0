"""The progress bar of commands that may take long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

Progress: TypeAlias = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done, 0 to 1."""


@contextmanager
def progress_bar(*, disabled: bool = False) -> Iterator[Progress]:
    """Show what is being done, and how far it is, on standard error if that is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}"))
    with Bar(*columns, console=console, disable=disabled or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("preparing", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
