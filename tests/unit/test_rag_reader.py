import dataclasses

import pytest

from rag.interpret import Selection
from rag.pairs import NO_SPAN, PairSettings
from rag.reader import EvidenceReader, Excerpt, ReaderInterpreter, Reading, reading_windows, weighed
from rag.retrieve import retrieve
from tests.pair_cases import KEY, tiny, toy_reader
from tests.unit.rag_cases import HashedWords

DOSE = "What is the maximum of paracetamol in a day?"
VOTE = "Do supporters of a lower voting age say that sixteen-year-olds pay taxes?"


class WordReader:
    """In the place of an `EvidenceReader`: as sure of a sentence as the test says of a word in it."""

    def __init__(self, sure, passage=0.5, sentence=0.5):
        self.sure = sure
        self.settings = PairSettings("reader", "words", "", "", 256, {"passage": passage, "sentence": sentence})
        self.excerpts = []

    def read(self, excerpts):
        self.excerpts += excerpts
        found = [tuple(self._sure(sentence) for sentence in excerpt.sentences) for excerpt in excerpts]
        return [Reading(max(sentences, default=0.0), sentences) for sentences in found]

    def _sure(self, sentence):
        return max((value for word, value in self.sure.items() if word in sentence), default=0.01)


def ask(knowledge, question, reader, selection=Selection()):  # noqa: B008
    evidence, documents = found(knowledge, question)
    return ReaderInterpreter(reader, HashedWords(), selection).answer(question, evidence, documents)


def found(knowledge, question):
    with knowledge.view() as view:
        evidence = retrieve(view, question, 3)
        return evidence, {item.passage.document: view.document(item.passage.document) for item in evidence}


# Windows


def sentences_of(windows):
    return [list(window.sentences) for window in windows]


def test_a_short_passage_is_one_window_and_the_topic_is_no_sentence():
    (window,) = reading_windows(tiny(), Excerpt("where is it ?", ("rose lawn .", "tulip ."), "title"), 48)
    assert window.sentences == range(2)
    assert window.pair.spans == [NO_SPAN, 1, 1, 1, 2, 2]
    assert len(window.pair.first) == 4


def test_a_long_passage_is_read_in_windows_of_whole_sentences_that_overlap():
    sentences = ("rose lawn tulip soil .",) * 7  # five tokens each; 22 fit beside the question
    windows = reading_windows(tiny(), Excerpt("where is it ?", sentences), 29)
    assert sentences_of(windows) == [[0, 1, 2, 3], [3, 4, 5, 6]]
    for window in windows:
        assert len(window.pair) + 3 <= 29
        assert window.pair.spans == [span for span in range(1, 5) for _ in range(5)]


@pytest.mark.parametrize("window", [32, 40, 64])
def test_every_sentence_is_read_and_no_window_is_too_long(window):
    sentences = tuple("rose " * length for length in (1, 30, 2, 2, 70, 1, 0, 15, 15, 15))
    windows = reading_windows(tiny(), Excerpt("where " * 40, sentences, "title " * 40), window)
    assert {at for found in sentences_of(windows) for at in found} == set(range(10))
    assert all(len(found.pair) + 3 <= window for found in windows)
    assert all(set(found.pair.spans) - {NO_SPAN} == set(range(1, 1 + len(found.sentences))) for found in windows)


def test_an_excerpt_without_sentences_has_no_window_and_answers_nothing():
    reader = EvidenceReader.load(toy_reader()[0], tiny())
    assert reader.read([Excerpt("where is it?", ())]) == [Reading(0.0, ())]
    assert reader.read([]) == []


# The reader


def test_the_sentence_that_answers_is_found_wherever_it_stands():
    reader = EvidenceReader.load(
        toy_reader()[0],
        tiny(),
    )
    plain = ["rose lawn tulip .", "spade hedge seed apple .", "water leaf bench tree ."] * 5
    for place in (0, 7, 14):
        sentences = [*plain]
        sentences[place] = f"soil {KEY} tree ."
        (reading,) = reader.read([Excerpt("where is it ?", tuple(sentences))])
        assert max(range(15), key=reading.sentences.__getitem__) == place
        assert all(0 <= value <= 1 for value in (reading.answers, *reading.sentences))


def test_readings_come_in_order():
    reader = EvidenceReader.load(toy_reader()[0], tiny())
    excerpts = [Excerpt("where is it ?", ("rose .",) * count) for count in (5, 1, 20, 2)]
    together = reader.read(excerpts)
    assert [len(reading.sentences) for reading in together] == [5, 1, 20, 2]
    for excerpt, reading in zip(excerpts, together, strict=True):
        (alone,) = reader.read([excerpt])
        assert alone.sentences == pytest.approx(reading.sentences, abs=1e-4)


# Answers


def test_an_answer_is_verbatim_cited_and_in_the_order_of_the_document(knowledge):
    answer = ask(knowledge, DOSE, WordReader({"tablets": 0.9, "four hours": 0.9999}))
    assert [citation.quote for citation in answer.citations] == [
        "An adult waits four hours between two doses of paracetamol.",
        "The maximum of paracetamol is eight tablets in a day,\n  which is 4,000 mg.",
    ]
    assert all(knowledge.check(citation) for citation in answer.citations)
    assert all(answer.answer[c.answer_start : c.answer_end] == c.quote for c in answer.citations)


def test_the_reader_sees_question_topic_and_sentences(knowledge):
    reader = WordReader({"tablets": 0.9})
    ask(knowledge, DOSE, reader)
    assert (
        Excerpt(
            DOSE,
            (
                "An adult waits four hours between two doses of paracetamol.",
                "The maximum of paracetamol is eight tablets in a day, which is 4,000 mg.",
            ),
            "Paracetamol\nDose",
        )
        in reader.excerpts
    )


def test_it_abstains_where_no_passage_answers_and_names_what_it_searched(knowledge):
    answer = ask(knowledge, DOSE, WordReader({"tablets": 0.49}))
    assert (answer.abstained, answer.answer, answer.citations) == (True, "", ())
    assert answer.searched == tuple(found(knowledge, DOSE)[0])
    assert ReaderInterpreter(WordReader({}), HashedWords()).answer(DOSE, [], {}).abstained


def test_of_sentences_as_likely_the_more_similar_wins_and_a_sure_one_stays():
    assert weighed([0.5, 0.5], [0.2, 0.6]) == [pytest.approx(0.0832, abs=1e-3), pytest.approx(0.5)]
    first, second = weighed([0.99, 0.2], [0.5, 0.7])
    assert first > 0.9 > second
    assert weighed([1.0, 0.0], [0.1, 0.1]) == pytest.approx([1.0, 0.0], abs=1e-5)
    assert weighed([], []) == []


def test_the_best_sentence_is_quoted_also_below_the_threshold_of_sentences(knowledge):
    answer = ask(knowledge, DOSE, WordReader({"tablets": 0.7, "four hours": 0.6}, sentence=0.9))
    assert ["tablets" in citation.quote for citation in answer.citations] == [True]


def test_sentences_of_a_passage_that_does_not_answer_are_not_quoted(knowledge):
    reader = WordReader({"tablets": 0.9, "prescription": 0.6}, passage=0.7, sentence=0.5)
    assert "prescription" not in ask(knowledge, DOSE, reader).answer
    reader = WordReader({"tablets": 0.9, "prescription": 0.6}, passage=0.5, sentence=0.5)
    assert "prescription" in ask(knowledge, DOSE, reader).answer


def test_limits_hold(knowledge):
    sure = {"paracetamol": 0.9, "Paracetamol": 0.8, "prescription": 0.7}
    one = ask(knowledge, DOSE, WordReader(sure), Selection(sentences=1))
    assert len(one.citations) == 1
    short = ask(knowledge, DOSE, WordReader(sure), Selection(characters=100))
    assert len(short.answer) <= 100
    same = ask(knowledge, DOSE, WordReader(sure), Selection(duplicate=-1.0))
    assert len(same.citations) == 1


def test_a_disputed_topic_is_answered_from_all_sides(knowledge):
    answer = ask(knowledge, VOTE, WordReader({"pay taxes": 0.9, "fear influence": 0.2}))
    quotes = " ".join(citation.quote for citation in answer.citations)
    assert {citation.document for citation in answer.citations} == {"voting"}
    assert "pay taxes" in quotes
    assert "fear influence" in quotes  # the best of its section, although the reader is not sure of it


def test_an_undisputed_topic_is_not(knowledge):
    evidence, documents = found(knowledge, VOTE)
    voting = dataclasses.replace(documents["voting"], metadata={})
    interpreter = ReaderInterpreter(WordReader({"pay taxes": 0.9}), HashedWords())
    answer = interpreter.answer(VOTE, evidence, {**documents, "voting": voting})
    assert ["pay taxes" in citation.quote for citation in answer.citations] == [True]
