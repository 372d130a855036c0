"""Rewrites, serving: what a query should have been."""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal, Self

import msgspec
from msgspec import Struct

from backchannel.agents.rewrites.rows import PersonalRow, RewriteRow, Settings, is_held_out
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize


class Rewriting(Struct, frozen=True):
    """What a query should have been.

    Attributes:
        target: a normalised query, or an interpretation if that is what was looked up.
        layer: who says so: `personal`, the user's own rephrases; `global`, everybody's; `pinned`, a decree.
        probability: that somebody who starts with the query passes through the target and succeeds there, 0 to 1.
        policy_version: the version that says so.
        support: turns of the query (decayed); 0 in the personal layer.
        withdrawn: why it is not served any more; empty while it is.
    """

    target: str
    layer: Literal["personal", "global", "pinned"]
    probability: float
    policy_version: int
    support: float = 0.0
    withdrawn: str = ""


_decode_rewrite = msgspec.json.Decoder(RewriteRow).decode
_decode_settings = msgspec.json.Decoder(Settings).decode
_decode_personal = msgspec.json.Decoder(PersonalRow).decode


class Rewriter:
    """The rewrites of one policy version.

    Args:
        section: the rows of everybody's rewrites.
        own: the rows of users.
        version: of the policy.
    """

    name: ClassVar[str] = "rewrites"
    personal: ClassVar[str] = "personal_rewrites"

    def __init__(self, section: Mapping[str, bytes], own: Mapping[str, bytes], version: int) -> None:
        self._rows: Final = section
        self._own: Final = own
        self._version: Final = version
        self._held_out: Final = _decode_settings(section.get(ALL, b"{}")).held_out

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}), sections.get(cls.personal, {}), header.version)

    def rewrite(
        self, query: str, *, interpretation: str | None = None, user: str | None = None, session: str | None = None
    ) -> Rewriting | None:
        """Return what `query` should have been; None if it had better stay as it is. See `Policy.rewrite`."""
        state = interpretation or normalize(query)
        row = self._row(state)
        if row is not None and row.pinned:
            return self._global(row)
        if session is not None and is_held_out(session, self._held_out):
            return None
        own = self._own.get(user) if user is not None else None
        found = _decode_personal(own).get(state) if own else None
        if found is not None and not (row and {ALL, found[0]}.intersection(row.blocked)):
            return Rewriting(found[0], "personal", found[1], self._version)
        return self._global(row) if row and row.target and not row.withdrawn else None

    def rewrites(self) -> dict[str, Rewriting]:
        """Return all rewrites of the global layer, the withdrawn ones too."""
        rows = ((state, self._row(state)) for state in self._rows)
        return {state: self._global(row) for state, row in rows if row and row.target}

    def _row(self, state: str) -> RewriteRow | None:
        row = self._rows.get(state) if state != ALL else None
        return None if row is None else _decode_rewrite(row)

    def _global(self, row: RewriteRow) -> Rewriting:
        layer: Literal["pinned", "global"] = "pinned" if row.pinned else "global"
        return Rewriting(row.target, layer, row.probability, self._version, row.support, row.withdrawn)
