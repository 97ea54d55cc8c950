import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.fusion import fuse
from rag.lexical import TOKENIZER, match_expression, spaced


@pytest.fixture(scope="module")
def table():
    database = sqlite3.connect(":memory:")
    database.execute(f'CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "{TOKENIZER}")')
    yield database
    database.close()


def matches(table, text, query):
    table.execute("DELETE FROM words")
    table.execute("INSERT INTO words VALUES (?)", (spaced(text),))
    expression = match_expression(query)
    return bool(expression) and bool(table.execute("SELECT 1 FROM words WHERE words MATCH ?", (expression,)).fetchall())


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The dogs are running.", "run, dog"),
        ("Ein Café in Zürich", "cafe zurich"),
        ("北京大学在海淀区。", "大学"),
        ("東京タワーは高い", "タワー"),
        ("서울특별시에 산다", "서울"),
        ("ภาษาไทยไม่เว้นวรรค", "ไทย"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("Добрый день", "ДЕНЬ"),
        ("4,000 mg", "4000 or 000"),
        ("１２３", "123"),
        ("GPU北京GPU", "北京"),
    ],
)
def test_words_of_many_scripts_are_found(table, text, query):
    assert matches(table, text, query)


@pytest.mark.parametrize(
    ("text", "query"), [("北京大学", "京北"), ("北京和大学", "京大"), ("running", "jump"), ("anything", '?! " * ( )')]
)
def test_what_is_not_there_is_not_found(table, text, query):
    assert not matches(table, text, query)


@pytest.mark.parametrize(
    "query", ['" OR "secret', "NEAR(secret)", "text : secret", "sec*", "NOT x", "^secret", "a AND", "{text} : x", "\0"]
)
def test_no_query_is_taken_for_syntax(table, query):
    matches(table, "nothing of the kind", query)
    assert not matches(table, "secrets are elsewhere", "sec*")
    assert "*" not in match_expression(query)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_query_and_finds_itself(text):
    database = sqlite3.connect(":memory:")
    database.execute(f'CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "{TOKENIZER}")')
    expression = match_expression(text)
    if expression:
        database.execute("SELECT count(*) FROM words WHERE words MATCH ?", (expression,)).fetchone()
    database.close()


def test_a_long_query_is_cut():
    assert match_expression(" ".join(f"w{number}" for number in range(10_000))).count('"') == 512


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("What is the dose?", '"dose"'),
        ("what does WHO say", '"WHO" OR "say"'),
        ("What is it?", '"What" OR "is" OR "it"'),
        ("was ist das", '"ist" OR "das"'),
        ("I have a will", '"will"'),
    ],
)
def test_common_words_are_left_out_unless_there_are_no_others(query, expected):
    assert match_expression(query) == expected


def test_common_words_first_do_not_use_up_the_query():
    assert match_expression("of " * 5000 + "walrus") == '"walrus"'


def test_fusion_prefers_what_both_orders_have():
    similar = {1: 0.7, 2: 0.6, 3: 0.6, 4: 0.3}
    assert fuse(similar, {3: 8.0, 4: 1.0}, least=0.5) == [3, 1, 2, 4]
    assert fuse({5: 0.6, 6: 0.5}, {}, least=0.5) == [5, 6]
    assert fuse({7: 0.5, 6: 0.5}, {7: 3.0, 6: 3.0}, least=0.5) == [6, 7]
    assert fuse({}, {}, least=0.0) == []


def test_fusion_lifts_rows_of_documents_with_a_near_ask():
    similar = {1: 0.7, 2: 0.6, 3: 0.5}
    assert fuse(similar, {}, {3: 0.9}, least=0.5) == [3, 1, 2]
    assert fuse(similar, {}, {3: 0.6, 2: 0.6}, least=0.5) == [1, 2, 3]
    assert fuse(similar, {}, {1: 0.2}, least=0.5) == [1, 2, 3], "one that is far takes nothing away"


def test_fusion_heeds_how_sure_each_order_is():
    assert fuse({1: 0.9, 2: 0.5}, {2: 1.0}, least=0.5) == [1, 2]
    assert fuse({1: 0.6, 2: 0.5}, {2: 30.0}, least=0.5) == [2, 1]
    close, far = {1: 0.90, 2: 0.85, 3: 0.82}, {1: 0.6, 2: 0.4, 3: 0.28}  # encoders that spread differently
    assert fuse(close, {3: 1.0}, least=0.8) == fuse(far, {3: 1.0}, least=0.2) == [1, 2, 3]
    assert fuse({1: 1.0, 2: 1.0}, {2: 1.0}, least=1.0) == [2, 1]
