import pytest
import torch

from rag.support import SupportReader, support_windows
from rag.types import Support
from tests.pair_cases import DENIAL, KEY, NOISE, tiny, toy_support


@pytest.fixture
def reader():
    return SupportReader.load(toy_support()[0], tiny())


class Counting:
    """In the place of an encoder: the tokens of a text are its numbers."""

    before, after, tokenizer = (1,), (2,), tiny().tokenizer

    def tokenize(self, texts):
        return {"input_ids": [[int(number) for number in text.split()] for text in texts]}


@pytest.mark.parametrize("window", [32, 48, 64])
@pytest.mark.parametrize(("said", "asked"), [(0, 0), (5, 3), (200, 3), (3, 200), (200, 200), (47, 1)])
def test_every_token_of_a_passage_is_read_and_no_window_is_too_long(window, said, asked):
    passage, claim = (" ".join(map(str, range(count))) for count in (said, asked))
    found = support_windows(Counting(), passage, claim, window)
    assert {token for pair in found for token in pair.first} == set(range(said))
    for pair in found:
        assert pair.first == list(range(pair.first[0], pair.first[-1] + 1) if pair.first else [])
        assert len(pair) + 3 <= window
        assert pair.spans == [1] * len(pair.second) != []
        assert pair.second == (list(range(asked))[: (window - 3) // 2] or [0])


def test_judgements_come_in_order_and_sum_to_one(reader):
    pairs = [("rose lawn .", f"tulip {word} {word} .") for word in (KEY, DENIAL, NOISE)]
    found = reader.support(pairs)
    assert [(s.supported > 0.5, s.contradicted > 0.5, s.not_stated > 0.5) for s in found] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    for judged in found:
        assert judged.supported + judged.contradicted + judged.not_stated == pytest.approx(1)
    assert reader.support([]) == []


@pytest.mark.parametrize("pair", [("", ""), ("", "rose"), ("rose", ""), ("\0", "\u200b")])
def test_odd_texts_are_judged_too(reader, pair):
    (judged,) = reader.support([pair])
    assert isinstance(judged, Support)
    assert judged.supported + judged.contradicted + judged.not_stated == pytest.approx(1)


def test_a_claim_of_several_sentences_holds_if_each_does_and_is_contradicted_if_one_is(reader):
    right, wrong, odd = (f"Tulip {word} {word}." for word in (KEY, DENIAL, NOISE))
    alone = {said: reader.support([("rose lawn .", said)])[0] for said in (right, wrong, odd)}
    assert alone[right].supported > 0.5 < alone[wrong].contradicted
    for parts in ([right, wrong, odd], [odd, wrong, right], [right, right], [right, odd]):
        for claim in (" ".join(parts), "\n".join(f"- {part}" for part in parts)):
            (judged,) = reader.support([("rose lawn .", claim)])
            assert judged.supported == pytest.approx(min(alone[part].supported for part in parts), abs=1e-4)
            assert judged.contradicted == pytest.approx(max(alone[part].contradicted for part in parts), abs=1e-4)
            assert judged.supported + judged.contradicted + judged.not_stated == pytest.approx(1)


def test_the_window_that_says_most_decides(reader, monkeypatch):
    values = iter([[0.2, 0.1, 3.0], [2.0, 0.0, 0.0], [0.1, 0.3, 4.0]])

    def canned(model, base, pairs, batch):
        return (torch.tensor([[0.0] * 3, next(values)]).double() for _ in pairs)

    monkeypatch.setattr("rag.support.logits", canned)
    monkeypatch.setattr("rag.support.support_windows", lambda *_: [None] * 3)
    (judged,) = reader.support([("a", "b")])
    assert judged.supported == pytest.approx(0.787, abs=0.001)
