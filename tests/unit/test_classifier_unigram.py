"""The dictionary search of a unigram vocabulary says what the library's own says."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from classifier.unigram import Unigram, UnigramTokenizer

LETTERS = "ab▁c"
PIECES = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=20, unique=True)
SCORES = st.floats(-12, -1, allow_nan=False).map(lambda value: round(value, 1))  # ties are likely


def both(pieces, scores):
    """The library's tokenizer, and ours behind the same normalizer and words."""
    whole = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=0, byte_fallback=False))
    whole.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    whole.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return whole, UnigramTokenizer(whole, Unigram(pieces, scores, 0))


@given(st.data(), PIECES, st.text(LETTERS + "xé😀 \n", max_size=30))
def test_ids_and_offsets_are_the_librarys(data, pieces, text):
    scores = data.draw(st.lists(SCORES, min_size=len(pieces), max_size=len(pieces)))
    whole, ours = both(["<unk>", *pieces], [-1e6, *scores])
    expected = whole.encode(text, add_special_tokens=False)
    assert ours.split(text) == (expected.ids, expected.offsets)


def test_the_likeliest_cut_wins_and_not_the_longest_piece():
    _, ours = both(["<unk>", "▁", "ab", "abc", "c", "d", "cd"], [-20.0, -1.0, -2.0, -9.0, -3.0, -3.0, -1.0])
    assert ours.split("abcd") == ([1, 2, 6], [(0, 1), (0, 2), (2, 4)])


def test_unknown_characters_are_one_token_each_run():
    _, ours = both(["<unk>", "▁", "a"], [-20.0, -1.0, -2.0])
    ids, offsets = ours.split("axyza xx")
    assert ids == [1, 2, 0, 2, 1, 0]
    assert offsets[2] == (1, 4)


@pytest.mark.parametrize("text", ["", " ", "\u200b", "a" * 3000, string.printable, "ﬁ½ ①"])
def test_odd_texts(text):
    whole, ours = both(["<unk>", "▁", *string.ascii_lowercase, "1", "/"], [-20.0] + [-2.0] * 29)
    expected = whole.encode(text, add_special_tokens=False)
    assert ours.split(text) == (expected.ids, expected.offsets)
