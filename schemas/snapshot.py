"""The snapshot: an immutable, versioned policy, as a header and the rows of its sections."""

from hashlib import blake2b
from typing import Final, Literal, TypeAlias

from msgspec import Struct

Section: TypeAlias = dict[str, bytes]
"""The rows of one learner's part of the policy: key -> JSON."""

_MODULUS: Final = 1 << 256


Verdict: TypeAlias = Literal["publish", "warn", "hold"]
"""What the gate says of a version: serve it; serve it, but see the reason; do not serve it."""


class Reached(Struct, frozen=True):
    """How far a partition was read.

    Attributes:
        watermark: its turns are learned up to this event time, ms since the Unix epoch.
        read: topic -> the offset after the last record that was read.
    """

    watermark: int
    read: dict[str, int]


class Snapshot(Struct, frozen=True, kw_only=True):
    """The header of one version.

    Attributes:
        version: 1, 2, 3 ...
        parent: the version whose rows this one has, but for those that changed; None for the first.
        created: when it was made, ms since the Unix epoch.
        watermark: event time up to which the policy has learned, ms since the Unix epoch.
        positions: source -> partition -> how far it was read. The policy is a function of what lies before.
        fingerprint: of the configuration that it was learned under.
        rows: the number of live rows in each section.
        checksum: of all live rows: 64 hexadecimal digits, see `Checksum`.
        verdict: the gate's; None if it was not asked.
        reason: for the verdict.
    """

    version: int
    parent: int | None
    created: int
    watermark: int
    positions: dict[str, dict[int, Reached]]
    fingerprint: str
    rows: dict[str, int]
    checksum: str
    verdict: Verdict | None = None
    reason: str | None = None


class Announcement(Struct, frozen=True):
    """Says on the snapshot topic that a version was published; see `Snapshot`."""

    version: int
    watermark: int
    checksum: str


class Checksum:
    """The checksum of a set of rows, kept up as rows come and go.

    It is the sum of the rows' 256-bit BLAKE2b digests modulo 2^256 (AdHash; Bellare & Micciancio, EUROCRYPT 1997), so
    whoever applies a delta can check the whole policy at the cost of the delta. It guards against corruption, not
    against forgery.
    """

    def __init__(self, digest: str = "0" * 64) -> None:
        self._sum = int(digest, 16)

    def add(self, section: str, key: str, value: bytes) -> None:
        """Count a row in."""
        self._sum = (self._sum + _digest(section, key, value)) % _MODULUS

    def remove(self, section: str, key: str, value: bytes) -> None:
        """Count a row out."""
        self._sum = (self._sum - _digest(section, key, value)) % _MODULUS

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return f"{self._sum:064x}"


def _digest(section: str, key: str, value: bytes) -> int:
    name = f"{len(section)}:{section}{len(key)}:{key}".encode()
    return int.from_bytes(blake2b(name + value, digest_size=32).digest(), "big")
