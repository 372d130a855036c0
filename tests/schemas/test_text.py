"""Spellings of one query share a key, and different queries do not."""

import doctest
import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.schemas import text as module
from backchannel.schemas.text import Fold, normalize, spelled

# The hard cases of normalization: marks, invisible characters, compatibility forms, kept punctuation.
AWKWARD = st.sampled_from("'’ʼ`&.+#\u00ad\u200d\ufe0f\u20e3\u0301\u0323\u0345ßẞİıŉǰΐᾳςΣﬁﾊﾟ½´ a❤👩🏴©\U000e0067\u1160")
TEXTS = st.text(AWKWARD | st.characters(), max_size=12)
# Letters of scripts with and without case, one spelling each.
WORDS = st.text(
    st.sampled_from("abcxyzäöüéñøαβγδωжшяїאבגابتहनमกขคあア東京서울"),
    min_size=1,
    max_size=6,
)
PHRASES = st.lists(WORDS, min_size=1, max_size=4)
SYMBOLS = st.text(st.sampled_from("$€+<=>°→♯♭♮♫★🙂🙃👍🏽❤✈☕🩷🇩🇪"), min_size=1, max_size=4)
PUNCTUATION = st.text(st.sampled_from("?!%—…:;()[]{}*~^|"), min_size=1, max_size=4)


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


@given(PHRASES, SYMBOLS, PHRASES, SYMBOLS)
def test_unlike_letters_or_symbols_keep_unlike_keys(one: list[str], of_one: str, two: list[str], of_two: str) -> None:
    texts = [
        unicodedata.normalize("NFC", " ".join((*one, of_one))),
        unicodedata.normalize("NFC", " ".join((*two, of_two))),
    ]
    assert (normalize(texts[0]) == normalize(texts[1])) == (texts[0] == texts[1])
    assert (normalize(of_one) == normalize(of_two)) == (of_one == of_two)


@given(PUNCTUATION, PUNCTUATION)
def test_unlike_punctuation_alone_keeps_unlike_keys(one: str, two: str) -> None:
    assert normalize(one)
    folded = [unicodedata.normalize("NFKC", symbols) for symbols in (one, two)]
    assert (normalize(one) == normalize(two)) == (folded[0] == folded[1])


@given(TEXTS)
def test_marks_never_remain_alone(text: str) -> None:
    for word in normalize(text).split():
        assert not unicodedata.category(word[0]).startswith("M")


@given(TEXTS, st.sampled_from(["tr", "az-AZ", "el", "lt", "de", None]), st.sets(st.sampled_from(get_args(Fold))))
def test_keys_stay_keys_in_every_locale(text: str, locale: str | None, folds: set[Fold]) -> None:
    key = normalize(spelled(text, locale, tuple(folds)))
    assert normalize(key) == key


@given(WORDS)
def test_without_locale_and_folds_a_text_is_read_as_it_is(text: str) -> None:
    assert spelled(text) == spelled(text, "en-GB") == text


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
        ("'quoted' #1 +1", "quoted 1 +1"),
        ("Don’t don`t donʼt", "don't don't don't"),
        ("🙂 !", "🙂"),
        ("🙂 hello", "🙂 hello"),
        ("❤️", "❤"),
        ("✈️", "✈"),
        ("☕️ nearby", "☕ nearby"),
        ("C♯ minor, B♭ major", "c♯ minor b♭ major"),
        ("👩\u200d🚀 👩🚀", "👩\u200d🚀 👩🚀"),
        ("🏴\U000e0067\U000e007f 🏴", "🏴\U000e0067\U000e007f 🏴"),
        ("a\u200db\U000e0067", "ab"),
        ("1 + 1 = 2", "1 + 1 = 2"),
        ("$5 or €5", "$5 or €5"),
        ("Lego® | City™", "lego citytm"),
        ("´ \u0301a", "a"),
        ("\u200b\ufe0f", ""),
        ("...", "..."),
        ("…", "..."),
        ("well… play...jazz", "well play jazz"),
    ],
)
def test_examples(text: str, key: str) -> None:
    assert normalize(text) == key


@pytest.mark.parametrize(
    ("text", "locale", "folds", "key"),
    [
        ("IĞDIR ilçesi", "tr-TR", (), "ığdır ilçesi"),
        ("I\u0307zmir", "az", (), "izmir"),
        ("IGLOO", "en", (), "igloo"),
        ("ΟΔΌΣ", "el", (), "οδοσ"),
        ("i\u0307\u0300", "lt", (), "ì"),
        ("٤٢ ४२ ۴۲", None, ("digits",), "42 42 42"),
        ("٤٢", None, (), "٤٢"),
        ("Crème Brûlée, Ångström, Żółć", None, ("diacritics",), "creme brulee angstrom zołc"),
        ("मुंबई パーティー ที่", None, ("diacritics",), "मुंबई パーティー ที่"),
        ("أَحْمَد", None, ("diacritics",), "أحمد"),
        ("أَحْمَد آل إبراهيم", None, ("diacritics", "alef"), "احمد ال ابراهيم"),
        ("مؤمن", None, ("diacritics", "alef"), "مؤمن"),
    ],
)
def test_examples_of_locales_and_folds(text: str, locale: str | None, folds: tuple[Fold, ...], key: str) -> None:
    assert normalize(spelled(text, locale, folds)) == key


def test_the_documentation_is_right() -> None:
    tested = doctest.testmod(module)
    assert tested.attempted
    assert not tested.failed
