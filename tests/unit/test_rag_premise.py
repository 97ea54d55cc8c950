import itertools

import pytest

from guard.sound import sound_answer
from rag.answer import Answerer
from rag.build import build
from rag.interpret import ExtractiveInterpreter
from rag.premise import false_premises
from rag.presupposition import presuppositions
from rag.store import KnowledgeBase
from rag.types import Evidence, Gate, Passage, Support
from tests.unit.rag_cases import HashedWords, document


class Finds:
    """A support model that finds claims with a word contradicted by sentences with another."""

    def __init__(self, claimed, said):
        self.claimed, self.said = claimed, said

    def support(self, pairs):
        return [
            Support(0.0, 0.9, 0.1) if self.claimed in claim and self.said in passage else Support(0.0, 0.1, 0.9)
            for passage, claim in pairs
        ]


@pytest.mark.parametrize(
    ("question", "claims"),
    [
        ("Since paracetamol is an antibiotic, how long must I take it?", ["paracetamol is an antibiotic"]),
        ("How long must I take it, since paracetamol is an antibiotic?", ["paracetamol is an antibiotic"]),
        ("Given that in Kent, rain falls on 9 days, what should I do?", ["in Kent, rain falls on 9 days"]),
        ("Why does the MMR vaccine cause autism?", ["the MMR vaccine does cause autism"]),
        ("Why was Napoleon short?", ["Napoleon was short"]),
        ("Why don't antibiotics work against colds?", ["antibiotics do not work against colds"]),
        ("why is the limit in the UK so low?", ["the limit in the United Kingdom is so low"]),
        ("When did Frontier purchase Spirit Airlines?", ["Frontier did purchase Spirit Airlines"]),
        ("How come people use ten percent of their brain?", ["people use ten percent of their brain"]),
        ("Can I give paracetamol, which is an antibiotic, to a baby?", ["paracetamol is an antibiotic"]),
        ("Antibiotics cure colds, so which one should I ask for?", ["Antibiotics cure colds"]),
        ("Naming the author makes a use fair, right?", ["Naming the author makes a use fair"]),
        ("Can you explain why the Earth is flat?", ["the Earth is flat"]),
        ("为什么抗生素能治感冒？", ["抗生素能治感冒"]),
        ("既然抗生素能治感冒，该吃哪种？", ["抗生素能治感冒"]),
        ("Warum verursacht die Impfung Autismus?", ["die Impfung Autismus verursacht"]),
        ("Da Antibiotika gegen Viren helfen, welches soll ich nehmen?", ["Antibiotika gegen Viren helfen"]),
    ],
)
def test_what_a_question_takes_for_granted(question, claims):
    assert presuppositions(question) == claims


@pytest.mark.parametrize(
    "question",
    [
        "Does the MMR vaccine cause autism?",
        "Is paracetamol an antibiotic?",
        "What is the maximum of paracetamol?",
        "My head hurts. What can I take?",
        "When can I drive again?",
        "If antibiotics cured colds, would you take them?",
        "",
    ],
)
def test_a_question_that_only_asks_takes_nothing_for_granted(question):
    assert presuppositions(question) == []


FALSE = "Why is the maximum of paracetamol twelve tablets in a day?"


@pytest.mark.parametrize("question", ["Why is , why is the sky blue?", "how come , how is it", "When does, when"])
def test_a_question_without_a_statement_takes_nothing_for_granted(question):
    assert not [claim for claim in presuppositions(question) if not claim.strip()]


def test_a_false_premise_is_named_and_the_answer_begins_with_the_correction(answerer, knowledge):
    answer = answerer.answer(FALSE)
    (premise,) = answer.premises
    assert (premise.claim, premise.rule) == ("the maximum of paracetamol is twelve tablets in a day", "number")
    assert premise.citation == answer.citations[0]
    assert answer.answer.startswith(premise.citation.quote)
    assert "eight tablets" in premise.citation.quote
    assert "twelve" not in answer.answer
    assert all(knowledge.check(citation) for citation in answer.citations)
    assert [answer.answer[c.answer_start : c.answer_end] for c in answer.citations] == [
        c.quote for c in answer.citations
    ]
    assert len({(c.document, c.start) for c in answer.citations}) == len(answer.citations)


def test_a_true_premise_changes_nothing(answerer):
    question = FALSE.replace("twelve", "eight")
    assert not answerer.answer(question).premises
    plain = answerer.answer("What is the maximum of paracetamol in a day?")
    assert plain.citations
    assert not plain.premises


def test_what_no_evidence_speaks_of_is_not_called_false(answerer):
    assert not answerer.answer("Why is the voting age of paracetamol tablets paid in roubles?").premises
    assert not answerer.answer("Since lions eat maize, how long do they sleep?").premises


def test_one_side_of_a_disputed_topic_contradicts_nothing(answerer):
    assert not answerer.answer("Why is the voting age not 18 in most countries?").premises


def test_a_support_model_finds_what_no_rule_does(knowledge):
    question = "Since paracetamol is an antibiotic for fever, how long must I take it?"
    assert not Answerer(knowledge, ExtractiveInterpreter(HashedWords())).answer(question).premises
    model = Finds("antibiotic", "eases pain and fever")
    answer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()), support=model).answer(question)
    assert [premise.rule for premise in answer.premises] == ["support-model"]
    assert answer.answer.startswith("Paracetamol eases pain and fever.")


def test_a_support_model_that_sees_the_premise_stated_has_the_last_word(knowledge):
    class Sees:
        def support(self, pairs):
            return [Support(0.9, 0.0, 0.1) for _ in pairs]

    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()), support=Sees())
    assert not answerer.answer(FALSE).premises


@pytest.mark.parametrize(
    ("claim", "rules"),
    [
        ("water boils at 90 degrees Celsius at sea level", ["number"]),
        ("water boils at 373 kelvin at sea level", []),
        ("a small claim costs over £30", []),
        ("a small claim costs over 50 pounds", ["number"]),
        ("a small claim costs less than 50 pounds", []),
        ("a small claim costs under 20 pounds", ["number"]),
        ("a small claim costs about 36 pounds", []),
        ("a small claim costs about 60 pounds", ["number"]),
        ("the small court opened in 2003", ["date"]),
        ("the small court opened before 2003", []),
    ],
)
def test_a_number_that_a_limit_allows_is_not_put_right(claim, rules):
    text = "Water boils at 100 degrees Celsius at sea level. A small claim costs 35 pounds."
    text += " The small court opened in 1998."
    known = document("d", text)
    evidence = [Evidence(Passage("d#0", "d", known.version, 0, len(text), text), 0.5)]
    found = false_premises([claim], evidence, {"d": known}, support=None, gate=Gate())
    assert [premise.rule for premise in found] == rules


def test_a_correction_that_several_documents_hold_is_said_once_and_named(tmp_path):
    paid, notice = "It must be paid within 14 days.", "A tenant must give 28 days notice."
    limit = "The fee is 35 pounds."
    (tmp_path / "source").mkdir()
    for name, said in (("a", (notice, paid)), ("b", (limit, paid)), ("c", (paid, limit))):
        text = f"# Rent {name}\n\n{' '.join(said)}\n"
        (tmp_path / "source" / f"{name}.md").write_text(text, encoding="utf-8")
    build(tmp_path / "source", tmp_path / "kb", HashedWords())
    encoder = HashedWords()
    answerer = Answerer(KnowledgeBase.open(tmp_path / "kb", encoder), ExtractiveInterpreter(encoder), k=5)
    false = ["it must be paid within 30 days", "a tenant must give 60 days notice", "the fee is 50 pounds"]
    for order in itertools.permutations(false):
        answer = sound_answer(answerer.answer(". ".join(f"Everyone knows that {claim}" for claim in order) + "."))
        quotes = [citation.quote for citation in answer.citations]
        assert len(set(quotes)) == len(quotes)
        assert {premise.citation.quote for premise in answer.premises} == {paid, notice, limit}


@pytest.mark.parametrize(
    ("claim", "said", "rules"),
    [
        ("adults need 8 hours of sleep", "Adults need 7 to 9 hours of sleep.", []),
        ("adults need 8 hours of sleep", "Adults need at least 7 hours of sleep.", []),
        ("the drug takes three days to work", "The drug takes 2 to 4 days to work.", []),
        ("aspirin is not safe for children", "Aspirin is safe for adults, and not for children.", []),
        ("adults need 5 hours of sleep", "Adults need 7 to 9 hours of sleep.", ["number"]),
        ("adults need 5 hours of sleep", "Adults need at least 7 hours of sleep.", ["number"]),
        ("the drug takes six days to work", "The drug takes 2 to 4 days to work.", ["number"]),
        ("aspirin is not safe for children", "Aspirin is safe for children.", ["negation"]),
    ],
)
def test_a_number_is_held_against_a_range_and_a_denial_against_its_words(claim, said, rules):
    known = document("d", said)
    evidence = [Evidence(Passage("d#0", "d", known.version, 0, len(said), said), 0.5)]
    found = false_premises([claim], evidence, {"d": known}, support=None, gate=Gate())
    assert [premise.rule for premise in found] == rules
