"""psycopg connections that time out when a server falls silent, and that take encoded arrays."""

import time
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow

from backchannel.streams.store.dialects.arrays import EncodedArray

PING_S: Final = 10.0
"""Seconds of silence after which a waiting connection is closed."""

_T = TypeVar("_T")


class ArrayDumper(Dumper):
    """Sends an encoded array as it is. Its type is what the statement casts it to."""

    format = Format.BINARY

    def dump(self, obj: EncodedArray) -> EncodedArray:
        """Return `obj`."""
        return obj


class PatientConnection(psycopg.Connection[TupleRow]):
    """A connection that is closed when nothing is heard for `patience_s` while it waits.

    libpq has no such limit, and TCP's do not help behind a proxy or a load balancer, which acknowledges for a server
    that it no longer reaches.
    """

    patience_s: float = PING_S

    def wait(self, gen: PQGen[_T], *args: Any, **kwargs: Any) -> _T:
        """See psycopg.

        Raises:
            OperationalError: nothing was heard for too long.
        """
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: PQGen[_T]) -> PQGen[_T]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.patience_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer for {self.patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            found: _T = end.value
            return found
