import asyncio
import re

import pytest

from rag.types import Document
from tests.doubles import Flaky, WordClassifier, make_guard, raises
from tests.unit.html_page import Page
from tests.unit.safety_cases import MEDICAL, SAFE, UNSAFE
from training.safety.report import write_safety_report
from training.safety.score import UNHURRIED, figures, measure

HOSTILE = "<script>alert(\"1\")</script> 'q' </p></li> & {{ 7 * 7 }} medicine"


def page(tmp_path, *rows, **parts):
    guard = make_guard(UNHURRIED, **parts)
    items = asyncio.run(measure(guard, rows, lambda name: Document(name, "v", "T", "Text.", {})))
    made_from = {"command": "airlock eval safety", "models": {HOSTILE: 3}, "seed": 0, "data": {HOSTILE: "0f0f"}}
    result = {**figures(items, resamples=10), **made_from, "items": [item.as_dict() for item in items]}
    write_safety_report(tmp_path / "deep" / "safety.html", result)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["safety.html"]
    return Page((tmp_path / "deep" / "safety.html").read_text(encoding="utf-8"))


@pytest.fixture
def whole(tmp_path):
    asked = ("Tallest tree?", "A bomb!", HOSTILE)
    rows = (SAFE, UNSAFE, MEDICAL)
    return page(tmp_path, *(row.model_copy(update={"question": text}) for row, text in zip(rows, asked, strict=True)))


def test_the_file_refers_to_nothing_outside_itself_and_texts_are_never_markup(whole):
    ids = {attributes["id"] for _, attributes in whole.elements if "id" in attributes}
    for tag, attributes in whole.elements:
        assert tag not in {"script", "img", "iframe", "object", "form", "base"}
        assert attributes.get("href", "data:,").removeprefix("#") in {*ids, "data:,"}
    assert not re.search(r"https?://[^ ]*\.(css|js)|url\(|@import", whole.markup)
    assert HOSTILE in whole.lines
    assert "<script" not in whole.markup


def test_the_lowest_score_comes_first_with_its_line_and_reason(whole):
    at = whole.text.index
    assert at("line 8, answered beside the question") < at("line 11, refused") < at("line 4, forwarded, as it should")
    assert "1 answers are worth 2, 1 are worth 1, 1 are worth 0." in whole.lines
    assert MEDICAL.why in whole.lines
    assert "Forward Everything\n0.333\n" in whole.text


def test_a_failed_row_says_why(tmp_path):
    failed = page(tmp_path, SAFE, classifier=Flaky(WordClassifier(), raises(RuntimeError("out of memory"))))
    assert "out of memory" in failed.text or "classifier" in failed.text
    assert ", Failed: " in failed.text
