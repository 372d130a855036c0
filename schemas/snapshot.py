"""The snapshot: an immutable, versioned policy, as a header and the rows of its sections."""

from hashlib import blake2b
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from backchannel.schemas.text import Fold

Section: TypeAlias = dict[str, bytes]
"""The rows of one learner's part of the policy: key -> JSON bytes."""

_MODULUS: Final = 1 << 256

Verdict: TypeAlias = Literal["publish", "warn", "canary", "hold"]
"""What the gate says of a bandit's policy: serve it; serve it, but see the reason; let it decide a share of the
queries; go on without it."""


class Estimate(Struct, frozen=True):
    """A value with its interval; NaN if there is no data."""

    value: float
    low: float
    high: float


class Evidence(Struct, frozen=True):
    """The off-policy evaluation of a version's policy on logged decisions, in reward per turn.

    Attributes:
        effective: effective sample size, in turns.
        value: expected reward per turn; None if there is too little data.
        gains: policy (`live` or `uniform`) -> the expected reward above that of the policy; empty if too little data.
    """

    effective: float = 0.0
    value: Estimate | None = None
    gains: dict[str, Estimate] = {}


class Trial(Struct, frozen=True, kw_only=True):
    """The trial of a bandit's policy against the one that is served.

    Attributes:
        number: the version with which it began.
        began: event time from which on decisions count, ms since the Unix epoch.
        share: of the decisions, those that the policy on trial makes; 0 once it has lost.
        turns: decided so far, by either policy.
        rewards: of those turns, added up.
        gain: how much more the policy on trial earns a turn, as a share of what the other one earns; its bounds hold at
            every look together.
        until: event time at which a policy that has lost is tried again, ms since the Unix epoch; None: it has not.
        lost: how often it has lost, in this trial and those before it.
    """

    number: int
    began: int
    share: float
    turns: float = 0.0
    rewards: float = 0.0
    gain: Estimate | None = None
    until: int | None = None
    lost: int = 0


class Reached(Struct, frozen=True):
    """How far a partition was read.

    Attributes:
        watermark: event time up to which its turns are learned, ms since the Unix epoch.
        read: topic -> the offset after the last record that was read.
    """

    watermark: int
    read: dict[str, int]


class Snapshot(Struct, frozen=True, kw_only=True):
    """The header of one version.

    Attributes:
        version: 1, 2, 3 ...
        parent: the previous version, from which this one differs in the rows that changed; None for the first.
        created: when it was made, ms since the Unix epoch.
        watermark: event time up to which the policy has learned, ms since the Unix epoch.
        positions: source -> partition -> how far it was read. The policy is a function of the records before that.
        fingerprint: fingerprint of the configuration that it was learned with.
        rows: the number of live rows in each section.
        checksum: checksum of all live rows: 64 hexadecimal digits; see `Checksum`.
        seal: the checksum with the publisher's key; None without a key.
        personal: the sections whose keys are users.
        impersonal: the checksum of the rows of all other sections, for readers that may not read those; None if no
            section is personal.
        impersonal_seal: that checksum with the publisher's key.
        verdict: the gate's verdict on the learned policy of the bandit; None if it was not judged.
        reason: the reason for the verdict.
        evidence: the numbers behind the verdict.
        trial: the trial of the learned policy, whose rows are the section `canary`; `bandit` then has the rows of the
            policy that is served beside it, or alone once the other has lost. None: all that was learned is served.
        held: since when the learned policy decides nothing, ms since the Unix epoch; None: it does.
        imported: whether it comes from another store, to which `positions` then refer.
        fold: in what queries of one key may differ; see `text.spelled`.
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
    personal: tuple[str, ...] = ()
    impersonal: str | None = None
    impersonal_seal: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    evidence: Evidence | None = None
    trial: Trial | None = None
    held: int | None = None
    imported: bool = False
    fold: tuple[Fold, ...] = ()

    def checksums(self, key: bytes = b"", *, personal: bool = True) -> "Checksum":
        """Return the checksum to continue from, or with a key the seal; see `confirms`."""
        return Checksum(self._digest(key, personal), self._nonce(personal), key)

    def confirms(self, checksum: "Checksum", key: bytes = b"", *, personal: bool = True) -> bool:
        """Return whether `checksum`, made with the same key, is that of this version's rows.

        Args:
            checksum: the checksum of all rows, or of those of the sections that are not `personal`.
            key: the key.
            personal: whether it covers all rows.
        """
        return checksum.hexdigest(self._nonce(personal)) == self._digest(key, personal)

    def _digest(self, key: bytes, personal: bool) -> str | None:
        if personal or not self.personal:
            return self.seal if key else self.checksum
        return self.impersonal_seal if key else self.impersonal

    def _nonce(self, personal: bool) -> str:
        # Two seals with one nonce would tell their difference.
        return self.nonce if personal or not self.personal else _impersonal(self.nonce)

    @property
    def nonce(self) -> str:
        """A text unique to this version, in any store."""
        return nonce(self.version, self.created)


def nonce(version: int, created: int) -> str:
    """Return the nonce of a version's seal."""
    return f"{version}/{created}"


def _impersonal(nonce: str) -> str:
    return f"{nonce} impersonal"


class Announcement(Struct, frozen=True):
    """Announces on the snapshot topic that a version was published; see `Snapshot`."""

    version: int
    watermark: int
    checksum: str


class Checksum:
    """The checksum of a set of rows, updated as rows are added and removed.

    It is the sum of the rows' 256-bit BLAKE2b digests modulo 2^256 (AdHash; Bellare & Micciancio, EUROCRYPT 1997), so
    applying a delta checks the whole policy at the cost of the delta. It guards against corruption. With a key it also
    guards against forgery: digests are keyed, and the checksum is their sum plus a number that only holders of the key
    can compute (MSet-Add-Hash; Clarke, Devadas, van Dijk, Gassend & Suh, ASIACRYPT 2003).

    Args:
        digest: the digest to continue from, as returned by `hexdigest`; None: no rows.
        nonce: the nonce of that digest.
        key: the key, at most 64 bytes.
    """

    def __init__(self, digest: str | None = None, nonce: str = "", key: bytes = b"") -> None:
        self._key = key
        self._sum = 0 if digest is None else int(digest, 16) - self._mask(nonce)

    def add(self, section: str, key: str, value: bytes) -> None:
        """Add a row."""
        self._sum += self._digest(section, key, value)

    def remove(self, section: str, key: str, value: bytes) -> None:
        """Remove a row."""
        self._sum -= self._digest(section, key, value)

    def hexdigest(self, nonce: str = "") -> str:
        """Return 64 hexadecimal digits. With a key, different sets of rows need different nonces."""
        return f"{(self._sum + self._mask(nonce)) % _MODULUS:064x}"

    def _digest(self, section: str, key: str, value: bytes) -> int:
        name = f"{len(section)}:{section}{len(key)}:{key}".encode()
        return int.from_bytes(blake2b(name + value, digest_size=32, key=self._key).digest(), "big")

    def _mask(self, nonce: str) -> int:
        if not self._key:
            return 0
        return int.from_bytes(blake2b(nonce.encode(), digest_size=32, key=self._key, person=b"mask").digest(), "big")


class Checksums:
    """All checksums in the header of a version, updated as rows are added and removed.

    Args:
        parent: the header to continue from; None: no rows.
        personal: the personal sections, the same as the parent's.
        key: the key of the seals; empty: there are none.
    """

    def __init__(self, parent: Snapshot | None, personal: tuple[str, ...], key: bytes = b"") -> None:
        self._personal: Final = personal

        def begin(secret: bytes, whole: bool) -> Checksum:
            return parent.checksums(secret, personal=whole) if parent else Checksum(key=secret)

        self._whole: Final = {"checksum": begin(b"", True)}
        self._part: Final = {"impersonal": begin(b"", False)} if personal else {}
        if key:
            self._whole["seal"] = begin(key, True)
            if personal:
                self._part["impersonal_seal"] = begin(key, False)

    def add(self, section: str, key: str, value: bytes) -> None:
        """Add a row."""
        for checksum in self._of(section):
            checksum.add(section, key, value)

    def remove(self, section: str, key: str, value: bytes) -> None:
        """Remove a row."""
        for checksum in self._of(section):
            checksum.remove(section, key, value)

    def fields(self, nonce: str) -> dict[str, Any]:
        """Return the fields of the header of the version with this `nonce`."""
        whole = {field: checksum.hexdigest(nonce) for field, checksum in self._whole.items()}
        return whole | {field: checksum.hexdigest(_impersonal(nonce)) for field, checksum in self._part.items()}

    def _of(self, section: str) -> tuple[Checksum, ...]:
        part = () if section in self._personal else self._part.values()
        return *self._whole.values(), *part
