"""Query normalization: spellings of the same query have the same key, and different queries have different ones."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

RULES: Final = 2
"""The number of the rules; another number is another fingerprint, because keys learned before are not found again."""

Fold: TypeAlias = Literal["digits", "diacritics", "alef"]
"""What queries of one key may differ in besides; see `spelled`."""

_INNER: Final = "'&.#"  # punctuation kept inside a word or at its end: rock'n'roll, at&t, 4.5, c#
_DECORATION: Final = frozenset("^|~¦©®")  # symbols without a meaning of their own
# Marks and letters that are never visible: variation selectors, the grapheme joiner, fillers.
_INVISIBLE: Final = frozenset(
    [0x34F, 0x115F, 0x1160, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
)
_EMOJI: Final = "[\u2190-\u21ff\u2600-\u2767\u2794-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
_TAGS: Final = "[\U000e0020-\U000e007f]"
# Invisible characters stay only where they make one emoji of several, or a flag: the first group.
_SEQUENCES: Final = re.compile(f"((?<={_EMOJI})\u200d(?={_EMOJI})|\U0001f3f4{_TAGS}+)|\u200d|{_TAGS}")
_JOINING: Final = re.compile(f"\u200d|{_TAGS}")


class _Characters(dict[int, str | None]):
    """The replacement of each character of a folded query, computed on first use."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept: str | None = character
        if code in _INVISIBLE or (category == "Cf" and not _JOINING.match(character)):
            kept = None
        elif character in "’‘ʼ`":
            kept = "'"
        elif character in _DECORATION or (category[0] in "PZ" and character not in _INNER) or category in {"Cc", "Cs"}:
            kept = " "
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


@lru_cache(maxsize=1 << 16)
def normalize(text: str) -> str:
    """Return the key of a query: NFKC, case-folded, without outer punctuation, white space collapsed.

    Letters, digits and symbols stay, emoji and ♯ among them; marks stay on their letters. Invisible characters go, and
    so do `^ | ~ ¦ © ®`, which decorate. Idempotent. A query of only punctuation keeps it, so that different queries
    never share the empty key.

    >>> normalize("  Play,  “Rock’n’Roll”  (AC/DC)! ")
    "play rock'n'roll ac dc"
    >>> normalize("C++ vs. C#") == normalize("c++ VS c#")
    True
    >>> normalize("I ❤️ NY!"), normalize("C♯ minor")
    ('i ❤ ny', 'c♯ minor')
    """
    folded = text.casefold() if text.isascii() else _visible(_fold(text))
    # Dropping a character may join characters that compose, so the words are folded again.
    separated = _fold(folded.translate(_CHARACTERS)).replace("..", " ")
    words = [_begun(word, _INNER).rstrip("'&.") for word in separated.split()]
    return " ".join(filter(None, words)) or " ".join(filter(None, map(_begun, _plain(folded).split())))


def language_of(locale: str) -> str:
    """Return the language of a locale, such as `tr` of `tr-TR`; empty if it has none."""
    return locale.replace("_", "-").partition("-")[0].lower()


@lru_cache(maxsize=1 << 16)
def spelled(text: str, locale: str | None = None, folds: Sequence[Fold] = ()) -> str:
    """Return `text` as `normalize` is to read it, in a locale and with what is declared to make no difference.

    Turkish and Azerbaijani (`tr`, `az`) have two letters i, and the capital of each is its own. Greek (`el`) capitals
    have no accents, and Lithuanian (`lt`) writes a dot on an accented i; neither makes a difference. All other text is
    as it was.

    Args:
        text: the query.
        locale: its locale, such as `tr-TR`.
        folds: `digits`: those of all scripts are 0 to 9; `diacritics`: Latin, Greek, Cyrillic, Hebrew and Arabic
            letters without accents, vowel signs and stretching; `alef`: that letter in its plain form.

    >>> normalize(spelled("ISPARTA İLİ", "tr")), normalize(spelled("Café ٤٢", None, ("digits", "diacritics")))
    ('ısparta ili', 'cafe 42')
    """
    language = language_of(locale or "")
    if language in {"tr", "az"}:
        text = unicodedata.normalize("NFC", text).replace("I", "ı").replace("İ", "i")
    elif language == "el":
        text = unicodedata.normalize("NFD", text).replace("\u0301", "")
    elif language == "lt":
        text = re.sub("([IiJj]\u0328?)\u0307", r"\1", unicodedata.normalize("NFD", text))
    if "digits" in folds:
        text = "".join(str(unicodedata.digit(one)) if one.isdecimal() else one for one in text)
    if "diacritics" in folds:
        text = "".join(one for one in unicodedata.normalize("NFD", text) if not _is_diacritic(one))
    if "alef" in folds:
        text = re.sub("[\u0622\u0623\u0625\u0671]", "\u0627", unicodedata.normalize("NFC", text))
    return text


def _is_diacritic(character: str) -> bool:
    """Whether it is an accent or a vowel sign that is often left out, or the stretching of an Arabic word."""
    number = unicodedata.combining(character)
    # Numbers 10 to 35 are Hebrew and Arabic points, from 200 on come accents; others make letters, such as hamza does.
    return character == "\u0640" or ((10 <= number <= 35 or number >= 200) and not "\u0653" <= character <= "\u0655")


def _begun(word: str, outer: str = "") -> str:
    """Return `word` from its first character on that is no mark, and not one of `outer`."""
    while word and (word[0] in outer or unicodedata.category(word[0])[0] == "M"):
        word = word[1:]
    return word


def _visible(text: str) -> str:
    """Return `text` with no other joiners and tags than those that make emoji."""
    if not _JOINING.search(text):
        return text
    return _SEQUENCES.sub(lambda found: found[1] or "", "".join(one for one in text if ord(one) not in _INVISIBLE))


def _plain(text: str) -> str:
    """Return a query of punctuation without what is invisible."""
    kept = ((one, unicodedata.category(one)) for one in text if ord(one) not in _INVISIBLE)
    return _fold("".join(" " if category in {"Cc", "Cs"} else one for one, category in kept if category != "Cf"))


def _fold(text: str) -> str:
    # Folding and composing can each undo the other (Unicode 3.13, D146), hence both twice.
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", text)
