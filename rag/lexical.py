"""Search by words: BM25 in SQLite's FTS5, for scripts with and without spaces between words."""

from __future__ import annotations

import itertools
import sqlite3
import unicodedata
from collections.abc import Iterator

import regex

from rag.scope import Scope

TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mc Mn'"

_COMMON = frozenset(  # English words that say nothing of what is asked about
    "a about am an and any are as at be been being but by can could did do does doing for from had has have having he "
    "her him his how i if in into is it its ll may me might must my no nor not of on or our re s shall she should so "
    "some such t than that the their them then there these they this those to us ve very was we were what when where "
    "which while who whom whose why with would you your".split()
)
_MOST_PHRASES = 256  # of a query; an encoder reads no more words either
_UNSPACED = r"(?:(?!\p{M})[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]\p{M}*)"
_CHARACTER = regex.compile(_UNSPACED)
_RUN = regex.compile(rf"(?P<unspaced>{_UNSPACED}+)|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}\p{{Co}}\p{{Mc}}\p{{Mn}}])+")


def spaced(text: str) -> str:
    """What is indexed of a text: characters of scripts that write no spaces stand alone, all others in their words."""
    return _CHARACTER.sub(lambda found: f" {found[0]} ", unicodedata.normalize("NFKC", text))


def match_expression(query: str) -> str:
    """An FTS5 expression for any of a query's words; empty without one.

    Common English words are left out, but for those in capitals (WHO), unless there are no others. Every word is quoted
    and made of letters and digits alone, so that no text is taken for syntax. A run of characters without spaces asks
    for each two that follow one another.
    """
    phrases = list(itertools.islice(dict.fromkeys(_phrases(query)), 4 * _MOST_PHRASES))
    telling = [phrase for phrase in phrases if phrase.lower() not in _COMMON or (phrase.isupper() and len(phrase) > 1)]
    return " OR ".join(f'"{phrase}"' for phrase in (telling or phrases)[:_MOST_PHRASES])


def search_words(connection: sqlite3.Connection, query: str, k: int, scope: Scope) -> list[tuple[int, float]]:
    """The rows of the `k` passages with the highest BM25 for a query, and it, best first, equals by row."""
    expression = match_expression(query)
    if not expression:
        return []
    if not scope.narrow and not len(scope.expired(connection)):  # then all that is indexed is in scope
        every = "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank, rowid LIMIT ?"
        return connection.execute(every, (expression, k)).fetchall()
    found = connection.execute(
        "SELECT words.rowid, -words.rank FROM words JOIN passages AS p ON p.row = words.rowid JOIN documents AS d "
        f"ON d.row = p.document WHERE words MATCH ? AND {scope.condition} ORDER BY words.rank, words.rowid LIMIT ?",
        (expression, *scope.values, k),
    )
    return found.fetchall()


def _phrases(query: str) -> Iterator[str]:
    for run in _RUN.finditer(unicodedata.normalize("NFKC", query)):
        if run["unspaced"] is None:
            yield run[0]
            continue
        characters = _CHARACTER.findall(run[0])
        pairs = [f"{one} {two}" for one, two in itertools.pairwise(characters)]
        yield from pairs or characters
