"""The contract of a learner's serving half. This module is cheap to import."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self, TypeAlias

from backchannel.schemas.snapshot import Section, Snapshot

Sections: TypeAlias = Mapping[str, Mapping[str, bytes]]
"""The rows of a policy version: section -> key -> JSON."""


class Serving(Protocol):
    """Serves the rows that a learner published.

    It is in `serving.py` beside the learner, and imports neither the learner nor anything that only learning needs.

    Attributes:
        name: the section that it reads, and the learner's name.
    """

    name: ClassVar[str]

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:
        """Return the serving half for one policy version.

        Args:
            sections: the rows, by section; without the sections that were never published.
            header: the header of the version. Sums are decayed to its watermark (event time, ms).
        """


def live_rows(section: Mapping[str, bytes | None]) -> Section:
    """Return the rows of a section without those that `Learner.solve` removed."""
    return {key: row for key, row in section.items() if row is not None}
