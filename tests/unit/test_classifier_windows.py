from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.types import Span
from classifier.windows import windows


@st.composite
def cuts(draw):
    size = draw(st.integers(1, 20))
    return draw(st.integers(1, 120)), size, draw(st.integers(0, size - 1))


def cut(tokens, size, overlap):
    """Token i has id i and the characters 3i to 3i + 2."""
    return list(windows(range(tokens), [(3 * i, 3 * i + 2) for i in range(tokens)], size=size, overlap=overlap))


@given(cuts())
def test_every_token_is_read_in_order_and_no_window_is_too_long(case):
    tokens, size, overlap = case
    found = cut(*case)
    assert sorted({token for window in found for token in window.ids}) == list(range(tokens))
    for window in found:
        assert 1 <= len(window.ids) <= size
        assert list(window.ids) == list(range(window.ids[0], window.ids[-1] + 1))
        assert window.span == Span(3 * window.ids[0], 3 * window.ids[-1] + 2)
    for one, next_ in pairwise(found):
        shared = one.ids[-1] - next_.ids[0] + 1
        assert shared == overlap if next_ is not found[-1] else shared >= overlap
        assert one.ids[0] < next_.ids[0]
        assert one.ids[-1] < next_.ids[-1]
    if tokens >= size:
        assert {len(window.ids) for window in found} == {size}


@given(cuts())
def test_no_window_is_for_nothing(case):
    tokens, size, overlap = case
    assert len(cut(*case)) == 1 + max(0, -(-(tokens - size) // (size - overlap)))


def test_a_short_rest_is_filled_from_the_left():
    assert [window.ids for window in cut(9, 4, 1)] == [(0, 1, 2, 3), (3, 4, 5, 6), (5, 6, 7, 8)]


def test_a_text_without_tokens_has_one_empty_window():
    (window,) = windows([], [], size=4, overlap=2)
    assert window.ids == ()
    assert window.span == Span(0, 0)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (4, 4), (4, 5), (4, -1), (1, 1)])
def test_a_window_that_cannot_move_on_is_refused(size, overlap):
    with pytest.raises(ValueError, match=f"size {size} with overlap {overlap}"):
        cut(3, size, overlap)
