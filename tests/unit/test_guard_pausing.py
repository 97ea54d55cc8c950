"""A support model reads in slices: nothing of what it says changes, and a call that nobody waits for ends."""

import asyncio
import time

import pytest

from classifier.pace import paced
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_answerer
from guard.config import load_config
from guard.errors import PartFailure
from guard.pausing import PAIRS, PausingSupport
from guard.runner import Runner
from rag.types import Support
from tests.doubles import ends


class Lengths:
    """Says how long a claim is."""

    def __init__(self, seconds=0.0, lost=0):
        self.seconds, self.lost, self.slices = seconds, lost, []

    def support(self, pairs):
        self.slices.append(len(pairs))
        time.sleep(self.seconds)
        shares = (len(claim) / 1000 for _, claim in pairs[self.lost :])
        return [Support(share, 0.0, 1.0 - share) for share in shares]


@pytest.mark.parametrize("count", [0, 1, PAIRS, PAIRS + 1, 3 * PAIRS + 5])
def test_judgements_come_in_the_order_of_the_pairs(count):
    pairs = [("passage", "x" * (7 * at % 100)) for at in range(count)]
    model, shares = Lengths(), []
    with paced(shares.append):
        found = PausingSupport(model).support(pairs)
    assert found == Lengths().support(pairs)
    assert sum(model.slices) == count
    assert max(model.slices, default=0) <= PAIRS
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == max(0, len(model.slices) - 1)
    assert all(0 < share < 1 for share in shares)


def test_a_judgement_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        PausingSupport(Lengths(lost=1)).support([("passage", "claim")] * 3)


def test_an_answer_of_too_many_sentences_does_not_go_on_behind_its_deadline():
    model = Lengths(seconds=0.02)
    pairs = [("passage", str(at)) for at in range(200 * PAIRS)]

    async def run():
        runner = Runner("part", deadline_s=0.1)
        with pytest.raises(PartFailure, match="deadline"):
            await runner.run(PausingSupport(model).support, pairs)
        await ends(runner)

    asyncio.run(run())
    assert len(model.slices) < 100


def test_the_gateway_reads_in_slices(monkeypatch):
    model = Lengths()
    for part in ("sentences", "search", "knowledge", "interpreter", "related"):
        monkeypatch.setattr(f"guard.assemble_knowledge.load_{part}", lambda *given: None)
    monkeypatch.setattr("guard.assemble_knowledge.load_support", lambda config, encoders: model)
    config = load_config(None)
    answer = "".join(
        f"{name} bread tastes good. " for name in "Fresh Warm Brown Dark Soft Crisp Dry Old Thin Sweet".split()
    )
    report = load_answerer(config, Encoders(config)).check(
        answer * 2, ["Bread tastes good.", "Bread tastes very good."]
    )
    assert len(report.sentences) == 20
    assert max(model.slices) == PAIRS
    assert len(model.slices) > 1
