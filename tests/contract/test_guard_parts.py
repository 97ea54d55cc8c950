"""One suite for each Protocol of `guard.types` and the journal's, run on the doubles and on the real parts."""

import asyncio
import threading

import pytest

from classifier.types import Tier
from guard.errors import ConfigError, PartFailure
from guard.journal import NoJournal
from guard.memory import RememberingClassifier
from guard.output import AllChecks, ClassifierCheck, PatternCheck
from guard.sound import sound_answer, sound_findings, sound_verdicts
from guard.types import Decision, Finding, Route
from tests.doubles import (
    PHRASE,
    Flaky,
    Library,
    MemoryJournal,
    PhraseCheck,
    WordClassifier,
    returns,
    verdict,
)
from tests.journals import open_journal


@pytest.fixture(params=["double", "remembering"])
def classifier(request):
    return WordClassifier() if request.param == "double" else RememberingClassifier(WordClassifier(), 3)


@pytest.mark.parametrize("texts", [[], ["hi"], ["hi", "bomb", "hi", "medicine", "despair"], ["", "\ud800", "\0"]])
def test_a_classifier_gives_one_sound_verdict_for_each_text_in_order(classifier, texts):
    found = sound_verdicts(classifier.classify(texts), len(texts))
    assert found == [sound_verdicts(classifier.classify([text]), 1)[0] for text in texts]
    assert all(verdict.tier is Tier.UNSAFE for text, verdict in zip(texts, found, strict=True) if text == "bomb")


def test_an_answerer_answers_soundly_or_abstains():
    assert sound_answer(Library().answer("what?")).citations
    assert sound_answer(Library().answer("nothing")).abstained


CHECKS = {
    "double": PhraseCheck,
    "pattern": lambda: PatternCheck({"phrase": PHRASE}, 12),
    "classifier": lambda: ClassifierCheck(WordClassifier(), 0.9, 12),
    "all": lambda: AllChecks(
        [
            PatternCheck({"other": "x{3}"}, 12),
            PatternCheck({"p": PHRASE}, 12),
            ClassifierCheck(WordClassifier(), 0.9, 5),
        ]
    ),
}


@pytest.fixture(params=CHECKS)
def check(request):
    return CHECKS[request.param]()


@pytest.mark.parametrize("texts", [[], ["fine"], ["fine", f"so {PHRASE}.", "", "fine", PHRASE, "\ud800"]])
def test_a_check_gives_one_finding_or_none_for_each_text_in_order(check, texts):
    found = sound_findings(check.check(texts), len(texts))
    assert [finding is not None for finding in found] == [PHRASE in text for text in texts]
    assert check.reach == len(PHRASE)


def test_each_check_names_what_it_found():
    checks = AllChecks([PatternCheck({"key": r"sk-\w{3}"}, 12), ClassifierCheck(WordClassifier(), 0.9, 12)])
    assert checks.check(["sk-abc bomb", "bomb", "hi"]) == [
        Finding("output_pattern:key"),
        Finding("output_unsafe", "u_weapons_violence"),
        None,
    ]
    assert AllChecks([]).check(["a"]) == [None]
    assert AllChecks([]).reach == 0


@pytest.mark.parametrize(("threshold", "withheld"), [(0.97, True), (0.98, False)])
def test_an_answer_is_withheld_from_the_threshold_on(threshold, withheld):
    found = ClassifierCheck(WordClassifier(), threshold, 12).check(["bomb"])
    assert (found[0] is not None) is withheld


@pytest.mark.parametrize(
    "rubbish", [None, [], [verdict()] * 2, [verdict(tiers=dict.fromkeys(Tier, float("nan")))], ["safe"]]
)
def test_rubbish_of_the_classifier_is_no_clean_bill_for_an_answer(rubbish):
    with pytest.raises(PartFailure):
        ClassifierCheck(Flaky(WordClassifier(), returns(rubbish)), 0.9, 12).check(["x"])


@pytest.mark.parametrize(
    ("regex", "bounded"),
    [
        ("a{12}", True),
        ("a{13}", False),
        ("a+", False),
        ("a*", False),
        ("a{3,}", False),
        ("(a{6}){2}", True),
        ("(a{6}){3}", False),
        (r"sk-[a-z]{1,9}", True),
        ("a|b{20}", False),
        ("(?i:abc)", True),
        (r"\bab\b", True),
        ("(?<=a{5})b", True),
        ("a(?=b{11})", True),
        ("a(?=b{12})", False),
        ("a(?=.*b)", False),
        ("(?:x|a(?!b{20}))", False),
        ("(?:a(?=b{10})){2}", True),
        ("(?:a(?=b{11})){2}", False),
        ("(?<=a{12})b", False),
    ],
)
def test_a_pattern_may_look_no_further_than_is_held_back(regex, bounded):
    if bounded:
        assert PatternCheck({"it": regex}, 12).reach == 12
    else:
        with pytest.raises(ConfigError, match=r"'it'.*hold_back is 12"):
            PatternCheck({"it": regex}, 12)


JOURNALS = {"double": lambda path: MemoryJournal(), "none": lambda path: NoJournal(), "sqlite": open_journal}


@pytest.fixture(params=JOURNALS)
def journal(request, tmp_path):
    made = JOURNALS[request.param](tmp_path / "j.db")
    yield made
    made.close()


def test_a_journal_takes_decisions_and_outcomes_of_several_loops_and_threads(journal):
    def work():
        async def write():
            decisions = [Decision(Route.FORWARD, "safe", verdict()) for _ in range(5)]
            await asyncio.gather(*(journal.decided(decision, "hi\0\ud800") for decision in decisions))
            for decision in decisions:
                await journal.ended(decision, "answered", status=None, detail="", ms=1.0)
            done.append(True)

        asyncio.run(write())

    done = []
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == 3


def test_a_journal_can_be_closed_twice(journal):
    journal.close()
    journal.close()
