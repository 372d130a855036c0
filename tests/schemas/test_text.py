"""Spellings of one query share a key, and different queries do not."""

import doctest
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.schemas import text as module
from backchannel.schemas.text import normalize

# The hard cases of normalization: marks, invisible characters, compatibility forms, kept punctuation.
AWKWARD = st.sampled_from("'’ʼ`&.+#\u00ad\u200d\ufe0f\u0301\u0323\u0345ßẞİıŉǰΐᾳςΣﬁﾊﾟ½´ a")
TEXTS = st.text(AWKWARD | st.characters(), max_size=12)
# Letters of scripts with and without case, one spelling each.
WORDS = st.text(
    st.sampled_from("abcxyzäöüéñøαβγδωжшяїאבגابتहनमกขคあア東京서울"),
    min_size=1,
    max_size=6,
)
PHRASES = st.lists(WORDS, min_size=1, max_size=4)
SYMBOLS = st.text(st.sampled_from("?!$%€—…:;()[]{}*~^|🙂🙃👍🏽❤♫"), min_size=1, max_size=4)


@given(TEXTS)
def test_it_is_idempotent(text: str) -> None:
    key = normalize(text)
    assert normalize(key) == key
    assert " ".join(key.split()) == key


@given(TEXTS)
def test_canonical_and_compatible_spellings_are_one(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normalize(unicodedata.normalize(form, text)) == normalize(text)


@given(TEXTS)
def test_case_does_not_matter(text: str) -> None:
    # Caseless matching is defined on decomposed text (Unicode, D146).
    assert normalize(unicodedata.normalize("NFKD", text).casefold()) == normalize(text)


@given(PHRASES, st.data())
def test_case_space_and_punctuation_between_words_do_not_matter(words: list[str], data: st.DataObject) -> None:
    separators = st.text(st.sampled_from(" \t\n\u00a0\u3000,;:!?/()[]“”«»—…、。・¿؟।"), min_size=1, max_size=3)
    cased = [data.draw(st.sampled_from([word, word.upper(), word.title()])) for word in words]
    spelled = "".join(data.draw(separators) + word for word in cased) + data.draw(separators)
    assert normalize(spelled) == normalize(" ".join(words))


@given(PHRASES, PHRASES)
def test_unlike_words_keep_unlike_keys(one: list[str], two: list[str]) -> None:
    composed = [unicodedata.normalize("NFC", " ".join(words)) for words in (one, two)]
    assert (normalize(composed[0]) == normalize(composed[1])) == (composed[0] == composed[1])


@given(SYMBOLS, SYMBOLS)
def test_unlike_symbols_keep_unlike_keys(one: str, two: str) -> None:
    assert normalize(one)
    spelled = [unicodedata.normalize("NFKC", symbols) for symbols in (one, two)]
    assert (normalize(one) == normalize(two)) == (spelled[0] == spelled[1])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ""),
        (" \t ", ""),
        ("STRASSE straße", "strasse strasse"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ﾊﾟｰﾃｨｰ", "パーティー"),
        ("ΟΔΟΣ οδός", "οδοσ οδόσ"),
        ("ДОЖДЬ, в Москве?", "дождь в москве"),
        ("東京、天気。", "東京 天気"),
        ("¿Dónde está?", "dónde está"),
        ("soft\u00adware", "software"),
        ("c++ c# at&t 4.5", "c++ c# at&t 4.5"),
        ("'quoted' #1 +1", "quoted 1 1"),
        ("Don’t don`t donʼt", "don't don't don't"),
        ("🙂 !", "🙂 !"),
        ("🙂 hello", "hello"),
        ("...", "..."),
        ("…", "..."),
        ("well… play...jazz", "well play jazz"),
    ],
)
def test_examples(text: str, key: str) -> None:
    assert normalize(text) == key


def test_the_documentation_is_right() -> None:
    tested = doctest.testmod(module)
    assert tested.attempted
    assert not tested.failed
