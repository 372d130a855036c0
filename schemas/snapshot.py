"""The snapshot: an immutable, versioned policy, as a header and the rows of its sections."""

from hashlib import blake2b
from typing import Final, Literal, TypeAlias

from msgspec import Struct

Section: TypeAlias = dict[str, bytes]
"""The rows of one learner's part of the policy: key -> JSON."""

_MODULUS: Final = 1 << 256

Verdict: TypeAlias = Literal["publish", "warn", "hold"]
"""What the gate says of a bandit's policy: serve it; serve it, but see the reason; go on with the one that is."""


class Estimate(Struct, frozen=True):
    """A value with its interval; NaN where there is nothing to tell it from."""

    value: float
    low: float
    high: float


class Evidence(Struct, frozen=True):
    """What logged decisions say of a version's policy, by off-policy evaluation; in rewards a turn.

    Attributes:
        effective: effective sample size, in turns.
        value: what a turn is expected to earn; None where there is too little to tell.
        gains: how much more that is than under the other policies, `live` and `uniform`; none likewise.
    """

    effective: float = 0.0
    value: Estimate | None = None
    gains: dict[str, Estimate] = {}


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
        seal: the same with the publisher's key; None without one.
        verdict: the gate's, of the bandit's policy as it was learned; None if it was not asked.
        reason: for the verdict.
        evidence: likewise, in numbers.
        held: since when the bandit's section is not what was learned, because that is held back, ms since the Unix
            epoch; None: it is.
        imported: whether it comes from another store. Then `positions` are of that one.
    """

    version: int
    parent: int | None
    created: int
    watermark: int
    positions: dict[str, dict[int, Reached]]
    fingerprint: str
    rows: dict[str, int]
    checksum: str
    seal: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    evidence: Evidence | None = None
    held: int | None = None
    imported: bool = False

    def checksums(self, key: bytes = b"") -> "Checksum":
        """Return the checksum to go on from, or with a key the seal."""
        return Checksum(self.seal if key else self.checksum, self.nonce, key)

    def confirms(self, checksum: "Checksum", key: bytes = b"") -> bool:
        """Whether these are the rows, by their checksum made with the same key."""
        return checksum.hexdigest(self.nonce) == (self.seal if key else self.checksum)

    @property
    def nonce(self) -> str:
        """What no other version has, in this store or another."""
        return nonce(self.version, self.created)


def nonce(version: int, created: int) -> str:
    """Return the nonce of a version's seal."""
    return f"{version}/{created}"


class Announcement(Struct, frozen=True):
    """Says on the snapshot topic that a version was published; see `Snapshot`."""

    version: int
    watermark: int
    checksum: str


class Checksum:
    """The checksum of a set of rows, kept up as rows come and go.

    It is the sum of the rows' 256-bit BLAKE2b digests modulo 2^256 (AdHash; Bellare & Micciancio, EUROCRYPT 1997), so
    whoever applies a delta can check the whole policy at the cost of the delta. It guards against corruption. With a
    key it guards against forgery too: digests are keyed, and what is shown is the sum plus a number that only those who
    have the key can tell (MSet-Add-Hash; Clarke, Devadas, van Dijk, Gassend & Suh, ASIACRYPT 2003).

    Args:
        digest: to go on from, as `hexdigest` returned it; None: from no rows at all.
        nonce: with which it did.
        key: at most 64 bytes.
    """

    def __init__(self, digest: str | None = None, nonce: str = "", key: bytes = b"") -> None:
        self._key = key
        self._sum = 0 if digest is None else int(digest, 16) - self._mask(nonce)

    def add(self, section: str, key: str, value: bytes) -> None:
        """Count a row in."""
        self._sum += self._digest(section, key, value)

    def remove(self, section: str, key: str, value: bytes) -> None:
        """Count a row out."""
        self._sum -= self._digest(section, key, value)

    def hexdigest(self, nonce: str = "") -> str:
        """Return 64 hexadecimal digits. With a key, no two sets of rows may have the same nonce."""
        return f"{(self._sum + self._mask(nonce)) % _MODULUS:064x}"

    def _digest(self, section: str, key: str, value: bytes) -> int:
        name = f"{len(section)}:{section}{len(key)}:{key}".encode()
        return int.from_bytes(blake2b(name + value, digest_size=32, key=self._key).digest(), "big")

    def _mask(self, nonce: str) -> int:
        if not self._key:
            return 0
        return int.from_bytes(blake2b(nonce.encode(), digest_size=32, key=self._key, person=b"mask").digest(), "big")
