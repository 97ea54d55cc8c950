import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.chunking import embedding_text, headings, passages, sentences, topic
from rag.grounding import check_answer
from rag.segments import segments, struck, uncommented
from rag.types import Document, Passage

WORDS = st.lists(
    st.sampled_from(["Äpfel", "😀", "Dr. Who", "e.g. so", "end.", "Really?", "4,000 mg", "U.S."]), min_size=1
)
LINE = st.builds(
    lambda marker, words: marker + " ".join(words),
    st.sampled_from(["", "- ", "1. ", "> ", "> - ", "# ", "## ", "  ", "    ", "\t", "```", "<div>", "| "]),
    WORDS,
)
MARKDOWN = st.lists(LINE | st.sampled_from(["", "", "---", "```", "===", "|-|-|"]), max_size=20).map("\n".join)


def document(text):
    return Document(id="d", version="v", title="Title", text=text, metadata={})


def quotes(text):
    return [text[sentence.start : sentence.end] for sentence in sentences(text)]


@given(text=MARKDOWN | st.text(), words=st.integers(1, 30))
def test_offsets_are_exact_and_each_sentence_is_in_one_passage(text, words):
    found = sentences(text)
    cut = passages(document(text), words)
    for passage in cut:
        assert text[passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip() != ""
    for sentence in found:
        quote = text[sentence.start : sentence.end]
        assert quote == quote.strip() != ""
        assert sum(p.start <= sentence.start and sentence.end <= p.end for p in cut) == 1
    ends = [sentence.end for sentence in found]
    assert all(end <= later.start for end, later in zip(ends, found[1:], strict=False))


@given(text=MARKDOWN, words=st.integers(1, 30))
def test_no_passage_crosses_a_heading(text, words):
    found = sentences(text)
    for passage in passages(document(text), words):
        inside = {s.section for s in found if passage.start <= s.start < passage.end}
        assert len(inside) == 1


def test_sentences_are_verbatim_without_marker_and_markup_gives_none():
    text = (
        "# Heading. Here.\n\nOne é 😀. Two\nlines. Three “quoted”.\n\n- Item one.\n  More of it. Item two\n\n"
        "> Quoted one.\n\n```\nCode. Here.\n```\n\n    Indented. Code.\n\n"
        "<div>Html. Here.</div>\n\n| A. | B. |\n|-|-|\n| C. | D. |\n\n"
        "Setext. Heading\n======\n\n1. Last\n"
    )
    assert quotes(text) == [
        "One é 😀.",
        "Two\nlines.",
        "Three “quoted”.",
        "Item one.",
        "More of it.",
        "Item two",
        "Quoted one.",
        "Last",
    ]


def test_a_line_break_ends_no_sentence_but_a_paragraph_does():
    assert quotes("The U.S.\nlaw of Dr.\nSmith applies.\n\nNext") == ["The U.S.\nlaw of Dr.\nSmith applies.", "Next"]


@pytest.mark.parametrize("text", ["No more than approx. 8 a day.", "Nicht gem. Vorschrift.", "Wait here.¹"])
def test_an_abbreviation_or_a_footnote_mark_cuts_no_sentence(text):
    assert [text[sentence.start : sentence.end] for sentence in sentences(text)] == [text]


@pytest.mark.parametrize(
    "text",
    [
        "> 5 mg a day is toxic.",
        "Patients with values\n> 5 mmol should fast.",
        "Es gilt nur\n- 5 Grad oder weniger.",
        "Das Gesetz gilt seit dem\n1. Januar 2020 für alle.",
        "5. Mai 2020 ist ein Feiertag.",
    ],
)
def test_the_sign_of_a_number_at_the_start_of_a_line_is_no_marker(text):
    assert quotes(text) == [text]
    assert [text[each.start : each.end] for each in segments(text)] == [text]


@pytest.mark.parametrize("blank", ["\u3000", "\xa0", "\x0c", "> \u3000", "\u3000\n\xa0"])
def test_a_line_of_other_spaces_before_a_paragraph_moves_none_of_its_sentences(blank):
    mark = "> " if blank.startswith(">") else ""
    text = f"Tea is hot.\n\n{blank}\n{mark}-3 °C is cold.\n{mark}Wait four hours. Drink.\n{mark}\u3000\n\nDone."
    assert quotes(text) == ["Tea is hot.", "-3 °C is cold.", "Wait four hours.", "Drink.", "Done."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("> Wait here.\n> Rest.", ["Wait here.", "Rest."]),
        ("> It grew to\n> 5 mg then.", ["It grew to\n> 5 mg then."]),
        ("> 5 mg then.\n> It grew.", ["> 5 mg then.", "It grew."]),
        ("You need\n- 5 eggs\n- 2 cups", ["You need", "5 eggs", "2 cups"]),
        ("You need:\n- 5 eggs", ["You need:", "5 eggs"]),
        ("1. Mai is warm.\n2. Juni is hot.", ["Mai is warm.", "Juni is hot."]),
        ("- 5. Mai 2020: Wahl.\n- 6. Mai 2020: Fest.", ["5. Mai 2020: Wahl.", "6. Mai 2020: Fest."]),
        ("> 5 mg\n=====\n\nRest.", ["Rest."]),
    ],
)
def test_markers_before_numbers_stay_markers_where_others_are_beside(text, said):
    assert quotes(text) == said


def test_a_heading_keeps_the_sign_of_its_number():
    assert headings("> 5 mg\n=====\n\nRest.") == ["> 5 mg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Rest. ~~Take 8. Or 9.~~ Take 4. Wait.", ["Rest.", "Take 4.", "Wait."]),
        ("Rest. <del>Take 8. Or 9.</del> Take 4.", ["Rest.", "Take 4."]),
        ("Rest. Take <s>8</s> 4. Wait.", ["Rest.", "Wait."]),
        ("Rest.\n\n<del>\n\nTake 8.\n\n</del>\n\nTake 4.", ["Rest.", "Take 4."]),
        ("Rest. <s>Take 8.\n\nTake 4.", ["Rest.", "Take 4."]),
        ("It takes ~~5 to ~~6 days.", ["It takes ~~5 to ~~6 days."]),
        ("Line one~~\n\nLine two~~", ["Line one~~", "Line two~~"]),
    ],
)
def test_struck_words_are_neither_in_sentences_nor_in_passages(text, said):
    assert quotes(text) == said
    for passage in passages(document(text)):
        assert not re.search("8|9", passage.text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Rest. <!-- The fee is 8. --> Take 4.", ["Rest.", "Take 4."]),
        ("Rest.<!-- 8 --> Take 4.<!-- It was 9. So? -->", ["Rest.", "Take 4."]),
        ("- Rest.\n- <!-- Take 8. -->\n- Take 4. <!-- Or\n  9. -->", ["Rest.", "Take 4."]),
        ("Rest. Take <!-- 8 --> tablets. Wait.", ["Rest.", "Wait."]),
        ("Rest <!-- is not closed.", ["Rest <!", "-- is not closed."]),
        ("It begins with `<!--`.\n\nTake 4.\n\n<!-- 8 -->", ["It begins with `<!", "--`.", "Take 4."]),
        ("- Rest.\n- <!-- Take 8.\n\n9. -->\n- Take 4.", ["Rest.", "Take 4."]),
        ("> <!-- Take 8.\r\n>\r\n> 9. -->\n\nTake 4.", ["Take 4."]),
        ("<!--\n```\n\nTake 8.\n\n```\n9 -->\n\nTake 4.", ["Take 4."]),
    ],
)
def test_comments_are_neither_in_sentences_nor_in_passages(text, said):
    assert quotes(text) == said
    for passage in passages(document(text)):
        assert not re.search("8|9", passage.text)


@pytest.mark.parametrize(
    "code",
    ["```html\n{}\n```", "~~~~\r\n{}\r\n~~~~", "    {}", "1. Code:\n\n   ```\n   {}\n   ```", "> ```\n> {}"],
)
def test_what_is_in_a_block_of_code_begins_no_comment(code):
    text = f"Begin.\n\n{code.format('<!--')}\n\nTake 4. <!-- 8 --> Rest.\n\n{code.format('-->')}\n\nThe end."
    said = quotes(text)
    assert [each for each in said if each != "Code:"] == ["Begin.", "Take 4.", "Rest.", "The end."]
    assert check_answer("Take 4. The end.", [text]).supported


def test_marks_that_end_bold_or_italic_words_end_their_sentence():
    text = "**Warning.** Do not take. *Never!* __Rest.__ Then **two. Of them.** Wait.* ***ca.*** 5 mg. **Go on** so."
    said = ["**Warning.**", "Do not take.", "*Never!*", "__Rest.__", "Then **two.", "Of them.**", "Wait.*"]
    assert quotes(text) == [*said, "***ca.*** 5 mg.", "**Go on** so."]
    assert quotes("- **Only.**") == ["**Only.**"]


def test_a_passage_that_another_version_cut_where_nothing_can_be_quoted_has_its_title_as_topic():
    text = "Take <!-- x --> 8."
    assert topic(document(text), Passage("a#0", "a", "v", 0, len(text), text)) == document(text).title
    below = f"{text}\n\n# Doses\n\nOne gram."
    assert topic(document(below), Passage("a#0", "a", "v", 0, len(text), text)) == document(below).title


def test_comments_are_in_no_heading():
    text = "# Doses <!-- anchor: 8 -->\n\nTake 4."
    assert headings(text) == ["Doses"]
    assert topic(document(text), passages(document(text))[0]) == "Title\nDoses"


@pytest.mark.parametrize(
    "text",
    [
        "x <!--\n\n" * 250_000 + "-->",
        "x <!--\r\r" * 250_000 + "-->",
        "<!--" * 500_000 + "\n\n-->",
        "```\n<!--\n```\n" * 20_000,
    ],
)
def test_what_looks_like_comments_is_looked_for_fast(text):
    start = time.process_time()
    assert len(uncommented(text)) == len(text)
    assert time.process_time() - start < 2


def test_struck_words_are_looked_for_once(monkeypatch):
    looked = []
    monkeypatch.setattr("rag.chunking.struck", lambda text: looked.append(text) or struck(text))
    text = "Looked for once. ~~Take 8.~~ Take 4. Wait."
    assert [p.text for p in passages(document(text))] == ["Looked for once.", "Take 4. Wait."]
    assert looked == [text]


def test_passages_are_filled_to_the_limit_and_a_longer_sentence_stands_alone():
    text = "# A\n\nOne two. Three four. Five six seven eight nine. Ten.\n\n# B\n\nEleven."
    assert [p.text for p in passages(document(text), 4)] == [
        "One two. Three four.",
        "Five six seven eight nine.",
        "Ten.",
        "Eleven.",
    ]
    assert [p.id for p in passages(document(text), 100)] == ["d#0", "d#1"]


def test_the_encoder_reads_title_and_heading_before_the_text():
    cut = passages(document("Before.\n\n# Title\n\nFirst.\n\n## Dose\n\nSecond."))
    assert [embedding_text(document("Before.\n\n# Title\n\nFirst.\n\n## Dose\n\nSecond."), p) for p in cut] == [
        "Title\nBefore.",
        "Title\nFirst.",
        "Title\nDose\nSecond.",
    ]


@pytest.mark.parametrize(
    "sentence", ["图书馆每天上午九点开门。", "図書館は毎日九時に開きます。", "The library opens at nine. "]
)
def test_long_texts_are_cut_in_scripts_without_spaces_too(sentence):
    cut = passages(document(sentence * 40), 30)
    assert len(cut) > 5
    assert max(len(passage.text.split()) for passage in cut) <= 30
    assert max(len(passage.text) for passage in cut) <= 30 * 6
