"""Stores that fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import event

from backchannel.streams.store.engine import Store


@contextmanager
def failing(store: Store, number: int) -> Iterator[list[str]]:
    """Make the store's n-th statement (n = `number`, from 1) raise ZeroDivisionError; yield a list that receives it."""
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
