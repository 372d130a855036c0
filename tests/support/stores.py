"""Making a store fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import event

from backchannel.streams.store.engine import Store


@contextmanager
def failing(store: Store, number: int) -> Iterator[list[str]]:
    """Let the statement of this number, from 1, raise a ZeroDivisionError; yields a list that it is then added to."""
    failed: list[str] = []
    numbers = count(1)

    def fail(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if next(numbers) == number:
            failed.append(statement)
            raise ZeroDivisionError(statement)

    event.listen(store._engine, "before_cursor_execute", fail)
    try:
        yield failed
    finally:
        event.remove(store._engine, "before_cursor_execute", fail)
