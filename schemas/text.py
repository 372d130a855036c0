"""Query normalization: spellings of the same query have the same key."""

import unicodedata
from functools import lru_cache


class _Characters(dict[int, str | None]):
    """The replacement of each character of a folded query, computed on first use."""

    # Kept inside a word or at its end: rock'n'roll, at&t, 4.5, c++, c#
    _inner = frozenset("'&.+#")

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept: str | None = character
        if category == "Cf":  # invisible: soft hyphens, joiners, directions
            kept = None
        elif character in "’‘ʼ`":
            kept = "'"
        elif category[0] in "PSZC" and character not in self._inner:
            kept = " "
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


@lru_cache(maxsize=1 << 16)
def normalize(text: str) -> str:
    """Return the key of a query: NFKC, case-folded, outer punctuation dropped, white space collapsed.

    Idempotent. A query of only symbols (an emoji, say) keeps them, so that different queries never share the empty key.

    >>> normalize("  Play,  “Rock’n’Roll”  (AC/DC)! ")
    "play rock'n'roll ac dc"
    >>> normalize("C++ vs. C#") == normalize("c++ VS c#")
    True
    """
    folded = text.casefold() if text.isascii() else _fold(text)
    # Dropping a character may join characters that compose, so the words are folded again.
    separated = _fold(folded.translate(_CHARACTERS)).replace("..", " ")
    words = [word.lstrip("'&.+#").rstrip("'&.") for word in separated.split()]
    return " ".join(filter(None, words)) or " ".join(folded.replace("\0", " ").split())


def _fold(text: str) -> str:
    # Folding and composing can each undo the other (Unicode 3.13, D146), hence both twice.
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", text)
