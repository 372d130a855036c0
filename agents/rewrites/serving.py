"""Rewrites, serving: the query that a failing query should have been."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Protocol, Self

import msgspec
from msgspec import Struct

from backchannel.agents.rewrites.hypotheses import heard
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import HabitRow, PersonalRow, RewriteRow, Settings, Usual, is_held_out
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.events import Hypothesis
from backchannel.schemas.snapshot import Snapshot
from backchannel.schemas.text import normalize


class Rewriting(Struct, frozen=True):
    """The rewrite of a query.

    Attributes:
        target: a normalised query, or an interpretation if one was looked up.
        layer: its source: `taught`, what the user or somebody for the user said outright; `personal`, the user's own
            rephrases; `global`, all users'; `pinned`, an operator's decree; `habit`, a query near it that has often
            succeeded for the user, though the user has never rephrased one as the other; `online`, a query near it that
            succeeds, though nobody has.
        probability: the probability, 0 to 1, that somebody who asks the query passes through the target and succeeds
            there; 0 in the layers habit and online.
        policy_version: the version of the policy.
        support: the turns of the query (decayed); 0 in the layers of the user.
        withdrawn: the reason why the rewrite is no longer served; empty while it is served.
        odds: the lower bound of wins to losses in the layers habit and online; 0 in the others.
        heard: whether it is served only where the target is among the recogniser's hypotheses, as it is an opposite.
    """

    target: str
    layer: Literal["taught", "personal", "global", "pinned", "habit", "online"]
    probability: float
    policy_version: int
    support: float = 0.0
    withdrawn: str = ""
    odds: float = 0.0
    heard: bool = False


class Found(Struct, frozen=True):
    """An online rewrite.

    Attributes:
        target: the state that is served instead.
        odds: the lower bound of wins to losses among pairs that score as high.
        habit: whether the target is one of the user's habits.
    """

    target: str
    odds: float
    habit: bool = False


class Online(Protocol):
    """Online rewrites: `online.OnlineRewrites`, which needs more packages than serving does."""

    def updated(self, added: Iterable[str], rows: Mapping[str, bytes]) -> "Online":
        """Return the online rewrites of a version with these `rows`, of which those of `added` are new."""

    def rewrite(
        self, text: str, row: RewriteRow | None, usual: Usual | None, hypotheses: Mapping[str, float], form: str
    ) -> Found | None:
        """Return what a query should have been; None if that is not sure enough.

        Args:
            text: a normalised query.
            row: the row of its interpretation or, without one, of the text, if there is one.
            usual: what the user who asks usually asks.
            hypotheses: what the recogniser may have heard; see `hypotheses.heard`.
            form: its interpretation; empty without one.
        """


_decode_rewrite = msgspec.json.Decoder(RewriteRow).decode
_decode_settings = msgspec.json.Decoder(Settings).decode
_decode_personal = msgspec.json.Decoder(PersonalRow).decode
_decode_habits = msgspec.json.Decoder(HabitRow).decode
_decode_ranker = msgspec.json.Decoder(Ranker).decode


class Rewriter:
    """The rewrites of one policy version.

    Args:
        section: the rows of the global layer, by state.
        own: the rows of the personal layer, by user.
        version: the policy's version.
        online: the online rewrites; None: there are none.
        habits: the rows of the users' habits, by user.
        ranker: the ranker of habits; None: no habits are served.
    """

    name: ClassVar[str] = "rewrites"
    personal: ClassVar[str] = "personal_rewrites"
    habits: ClassVar[str] = "habits"
    habit_ranking: ClassVar[str] = "habit_ranking"

    def __init__(
        self,
        section: Mapping[str, bytes],
        own: Mapping[str, bytes],
        version: int,
        online: Online | None = None,
        *,
        habits: Mapping[str, bytes] = MappingProxyType({}),
        ranker: Ranker | None = None,
    ) -> None:
        self._rows: Final = section
        self._own: Final = own
        self._version: Final = version
        self._online: Final = online
        self._habits: Final = habits
        self._ranker: Final = ranker
        self._held_out: Final = _decode_settings(section.get(ALL, b"{}")).held_out

    @classmethod
    def of(cls, sections: Sections, header: Snapshot, online: Online | None = None) -> Self:
        """See `Serving.of`."""
        own, habits = sections.get(cls.personal, {}), sections.get(cls.habits, {})
        ranker = sections.get(cls.habit_ranking, {}).get(ALL)
        known = None if ranker is None else _decode_ranker(ranker)
        return cls(sections.get(cls.name, {}), own, header.version, online, habits=habits, ranker=known)

    @staticmethod
    def is_online(section: Mapping[str, bytes]) -> bool:
        """Return whether a version with these rows of the global layer has online rewrites."""
        return _decode_settings(section.get(ALL, b"{}")).odds > 0

    def rewrite(
        self,
        query: str,
        *,
        interpretation: str | None = None,
        user: str | None = None,
        session: str | None = None,
        taught: str | None = None,
        hypotheses: Sequence[Hypothesis] = (),
    ) -> Rewriting | None:
        """Return the rewrite of `query`; None to leave it as it is. See `Policy.rewrite`.

        `taught` is what the query means, as somebody said: it comes first, unless it is blocked.
        """
        state = interpretation or normalize(query)
        row = self._row(state)
        if taught is not None and not (row and {ALL, taught}.intersection(row.blocked)):
            return None if taught == state else Rewriting(taught, "taught", 1.0, self._version)
        if row is not None and row.pinned:
            return self._global(row)
        if session is not None and is_held_out(session, self._held_out):
            return None
        own = self._own.get(user) if user is not None else None
        found = _decode_personal(own).get(state) if own else None
        if found is not None and not (row and {ALL, found[0]}.intersection(row.blocked)):
            return Rewriting(found[0], "personal", found[1], self._version)
        texts = heard(hypotheses)
        if row and row.target:
            return None if row.withdrawn or (row.heard and row.target not in texts) else self._global(row)
        return self._near(normalize(query), interpretation or "", row, user, texts)

    def candidates(self, state: str, user: str | None = None) -> list[str]:
        """Return the targets that are known for a state and not blocked, also withdrawn ones; the user's own first."""
        row = self._row(state)
        own = self._own.get(user) if user is not None else None
        found = _decode_personal(own).get(state) if own else None
        targets = [*(found[:1] if found else ()), *([row.target] if row and row.target else ())]
        blocked = row.blocked if row else ()
        return [] if ALL in blocked else [one for one in dict.fromkeys(targets) if one not in blocked]

    def rewrites(self) -> dict[str, Rewriting]:
        """Return all rewrites of the global layer, including withdrawn ones."""
        rows = ((state, self._row(state)) for state in self._rows)
        return {state: self._global(row) for state, row in rows if row and row.target}

    def _near(
        self, text: str, form: str, row: RewriteRow | None, user: str | None, hypotheses: Mapping[str, float]
    ) -> Rewriting | None:
        if self._online is None or not text or (row and ALL in row.blocked):
            return None
        own = self._habits.get(user) if user is not None else None
        usual = Usual(_decode_habits(own), self._ranker) if own else None
        near = self._online.rewrite(text, row, usual, hypotheses, form)
        if near is None:
            return None
        return Rewriting(near.target, "habit" if near.habit else "online", 0.0, self._version, odds=near.odds)

    def _row(self, state: str) -> RewriteRow | None:
        row = self._rows.get(state) if state != ALL else None
        return None if row is None else _decode_rewrite(row)

    def _global(self, row: RewriteRow) -> Rewriting:
        layer: Literal["pinned", "global"] = "pinned" if row.pinned else "global"
        return Rewriting(row.target, layer, row.probability, self._version, row.support, row.withdrawn, heard=row.heard)
