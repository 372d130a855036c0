"""What serves what was learned: the contract of a learner's serving half. Importing it costs next to nothing."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self, TypeAlias

from backchannel.schemas.snapshot import Section, Snapshot

Sections: TypeAlias = Mapping[str, Mapping[str, bytes]]
"""The rows of a policy version: section -> key -> JSON."""


class Serving(Protocol):
    """What serving makes of the rows that a learner published.

    It lives in the learner's room, in `serving.py`, and imports neither the learner nor what only learning needs.

    Attributes:
        name: the section that it reads; the learner takes its own name from here.
    """

    name: ClassVar[str]

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """Return what serves the rows of one policy version.

        Args:
            sections: the rows. A section that was never published is missing.
            header: of the version; its watermark is the event time (ms) as of which the policy forgets.
        """


def live_rows(section: Mapping[str, bytes | None]) -> Section:
    """Return the rows of a section without those that `Learner.solve` removed."""
    return {key: row for key, row in section.items() if row is not None}
