import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.datasets import Row
from training.mixture import draw


def rows(counts):
    return [
        Row(f"{source} {category} {number}", category, "train", source)
        for (source, category), count in counts.items()
        for number in range(count)
    ]


ROWS = rows(
    {("big", "a"): 60, ("big", "b"): 25, ("big", "c"): 3, ("small", "a"): 10, ("small", "b"): 1, ("own", "a"): 40}
)


def sources(found):
    return Counter(row.source for row in found)


def categories(found):
    return Counter(row.category for row in found)


def test_without_caps_every_row_is_drawn_once_in_an_order_of_the_seed():
    found = draw(ROWS, random.Random(0))
    assert Counter(found) == Counter(ROWS)
    assert found != ROWS
    assert found == draw(ROWS, random.Random(0)) != draw(ROWS, random.Random(1))


def test_a_cap_above_all_counts_leaves_all_rows():
    assert Counter(draw(ROWS, random.Random(0), source_cap=88, category_cap=110)) == Counter(ROWS)


def test_a_source_is_cut_evenly_its_small_categories_whole():
    found = draw(ROWS, random.Random(0), source_cap=33)
    assert sources(found) == {"big": 33, "small": 11, "own": 33}
    assert categories(row for row in found if row.source == "big") == {"a": 15, "b": 15, "c": 3}


def test_a_category_is_cut_evenly_its_small_sources_whole():
    found = draw(ROWS, random.Random(0), category_cap=40)
    assert categories(found) == {"a": 40, "b": 26, "c": 3}
    assert sources(row for row in found if row.category == "a") == {"big": 15, "own": 15, "small": 10}


def test_categories_are_cut_of_what_is_left_of_the_sources():
    found = draw(ROWS, random.Random(0), source_cap=33, category_cap=30)
    assert categories(found) == {"a": 30, "b": 16, "c": 3}
    assert max(sources(found).values()) <= 33


def test_the_caps_do_not_touch_sources_that_are_kept_whole():
    found = draw(ROWS, random.Random(0), source_cap=5, category_cap=7, whole=["own"])
    assert sources(found)["own"] == 40
    rest = [row for row in found if row.source != "own"]
    assert max(sources(rest).values()) <= 5
    assert max(categories(rest).values()) <= 7


def test_another_epoch_sees_other_rows_and_as_many():
    drawn = [draw(ROWS, random.Random(seed), source_cap=33, category_cap=30) for seed in range(20)]
    assert {len(found) for found in drawn} == {len(drawn[0])}
    assert len({frozenset(found) for found in drawn}) == 20
    assert {row for found in drawn for row in found} == set(ROWS)


counts = st.dictionaries(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd")), st.integers(1, 30), min_size=1)
caps = st.one_of(st.none(), st.integers(1, 40))


@given(counts, caps, caps, st.integers(0, 5))
def test_caps_hold_and_are_used_up(counts, source_cap, category_cap, seed):
    everything = rows(counts)
    found = draw(everything, random.Random(seed), source_cap=source_cap, category_cap=category_cap)
    assert not Counter(found) - Counter(everything)
    assert all(count <= (source_cap or 99) for count in sources(found).values())
    assert all(count <= (category_cap or 999) for count in categories(found).values())
    if category_cap is None:
        whole = sources(everything)
        assert sources(found) == {source: min(count, source_cap or count) for source, count in whole.items()}
    if source_cap is None:
        whole = categories(everything)
        assert categories(found) == {name: min(count, category_cap or count) for name, count in whole.items()}


@given(counts, caps, caps)
@example({("x", "a"): 5, ("x", "b"): 5, ("y", "a"): 7}, 7, 10)
def test_every_epoch_has_as_many_rows(counts, source_cap, category_cap):
    everything = rows(counts)
    drawn = [draw(everything, random.Random(n), source_cap=source_cap, category_cap=category_cap) for n in range(6)]
    assert len({len(found) for found in drawn}) == 1


@pytest.mark.parametrize("options", [{}, {"source_cap": 3}, {"category_cap": 3}, {"whole": ["x"], "source_cap": 1}])
def test_no_rows_give_no_rows(options):
    assert draw([], random.Random(0), **options) == []
