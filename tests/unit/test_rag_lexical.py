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


def test_fusion_prefers_what_both_orders_have():
    assert fuse([[1, 2, 3], [3, 4]]) == [3, 1, 2, 4]
    assert fuse([[5, 6], []]) == [5, 6]
    assert fuse([[7], [6]]) == [6, 7]
    assert fuse([]) == []
