"""The doors for callers that hold messages: what may be read of a conversation, and how each request ends."""

import asyncio

import pytest

from guard.doors import enter, leave
from guard.errors import BadRequest
from guard.forwarded import Said
from tests.doubles import MemoryJournal, make_guard

TEXT_ONLY = {"conversation.non_text_parts": "text_only"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
NOTE = {"type": "text", "text": "[image_url removed]"}


def user(*content):
    return {"role": "user", "content": list(content)}


def text(said):
    return {"type": "text", "text": said}


def test_parts_without_text_are_taken_out_of_the_messages_that_had_them():
    journal = MemoryJournal()
    messages = [user(text("hello"), IMAGE), {"role": "assistant", "content": "Hello."}, user(text("and now?"))]
    entered = asyncio.run(enter(make_guard(TEXT_ONLY, journal=journal), messages))
    assert entered.reply is None
    assert entered.kept == (0, 1, 2)
    assert entered.trimmed == {0: user(text("hello"), NOTE)}
    assert journal.decisions[0][0].removed == ("image_url",)


def test_parts_without_text_pass_or_are_refused_as_the_operator_says():
    messages, journal = [user(text("hello"), IMAGE)], MemoryJournal()
    entered = asyncio.run(enter(make_guard({"conversation.non_text_parts": "pass"}, journal=journal), messages))
    assert (entered.kept, entered.trimmed) == ((0,), {})
    assert journal.decisions[0][0].unjudged == ("image_url",)
    with pytest.raises(BadRequest, match="non_text_parts"):
        asyncio.run(enter(make_guard(), messages))


def test_a_turn_that_was_refused_is_known_by_its_place_not_by_its_words():
    guard = make_guard(TEXT_ONLY)
    refusal = next(iter(guard.reading.refusals))
    messages = [user(text("hi"), IMAGE), {"role": "assistant", "content": refusal}, user(text("hi"), IMAGE)]
    entered = asyncio.run(enter(guard, messages))
    assert entered.kept == (2,)
    assert entered.trimmed == {2: user(text("hi"), NOTE)}


def test_a_number_that_is_none_is_a_bad_request():
    with pytest.raises(BadRequest, match="number"):
        asyncio.run(enter(make_guard(), [{"role": "user", "content": "hello", "weight": float("nan")}]))


def test_an_answer_whose_caller_waits_no_more_is_an_outcome():
    journal = MemoryJournal()

    async def run():
        guard = make_guard(journal=journal)
        entered = await enter(guard, [user(text("hello"))])
        started = asyncio.Event()

        async def find(*_):
            started.set()
            await asyncio.Event().wait()

        guard.find = find
        leaving = asyncio.ensure_future(leave(guard, entered.decision, [Said(0, "Hello.")]))
        await started.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving

    asyncio.run(run())
    assert [outcome[1] for outcome in journal.outcomes] == ["disconnected"]
