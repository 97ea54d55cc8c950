import copy
import math
import re

import pytest

from tests.classifier_cases import Spoken
from tests.unit.html_page import Page
from training.datasets import Row
from training.report import LEFT, RIGHT, line_path, visible, write_report
from training.tiers.evaluate import Judged, compare, evaluate_disguises

NONE = {"value": None, "low": None, "high": None}
HOSTILE = "<script>alert(\"1\")</script> 'q' </p></li> & {{ 7 * 7 }}"


def figure(value, width=0.02):
    return {"value": value, "low": value - width, "high": value + width}


def group(rows, accuracy, risk=None, unsafe=None, flagged=None, refused=None):
    names = ("rows", "accuracy", "risk_recall", "unsafe_recall", "safe_flagged", "safe_refused")
    return dict(zip(names, (rows, accuracy, risk, unsafe, flagged, refused), strict=True))


RESULT = {
    "command": "airlock eval classifier --data tiers.jsonl",
    "adapter_sha256": "c77f46b3940e",
    "rows": 100,
    "model": "tiers@1",
    "macro_f1": figure(0.9),
    "accuracy": figure(0.91),
    "risk_recall": figure(0.966),
    "safe_flagged": figure(0.08),
    "safe_refused": figure(0.025),
    "unsafe_recall": NONE,
    "ece": figure(0.031),
    "category_accuracy": 0.85,
    "auroc_risk": figure(0.98),
    "auroc_unsafe": NONE,
    "tiers": ["safe", "conditionally_safe", "focused_attention", "unsafe"],
    "confusion": [[40, 2, 1, 1], [2, 25, 3, 0], [1, 1, 24, 0], [0, 0, 0, 0]],
    "risk_recall_at_flagged": {"0.01": figure(0.7), "0.1": figure(0.97)},
    "unsafe_recall_at_refused": {"0.01": NONE, "0.05": NONE},
    "by_tier": {
        "safe": {"rows": 44, "precision": 0.93, "recall": 0.91, "f1": 0.92},
        "unsafe": {"rows": 0, "precision": None, "recall": None, "f1": None},
    },
    "by_source": {"": group(3, 1.0), "<b>little</b>": group(90, 0.8, 0.9)},
    "by_category": {"c_flimwick": group(30, 0.83, 0.93), "s_kitchen": group(44, 0.91, None, None, 0.09, 0.02)},
    "by_language": {"en": group(100, 0.91, 0.966)},
    "by_length": {"120-399 characters": group(9, 0.9), "40-119 characters": group(9, 0.9)},
    "reliability": [
        {"rows": 10, "probability": 0.55, "right": 0.5},
        {"rows": 90, "probability": 0.97, "right": 0.95},
    ],
    "commit": "abc+changes",
    "time": "2026-01-02T03:04:05+00:00",
    "seed": 0,
    "data": {"tiers.jsonl": "0f0f"},
    "machine": {"cpu": "abacus", "cores": None},
    "libraries": {"torch": "2.7"},
}
DISGUISED = {
    "rows": 50,
    "plain": {"flagged": 0.95, "refused": 0.4},
    "mean_loss": 0.3,
    "mean_loss_untrained": math.nan,
    "worst_loss": {"disguise": "leetspeak", "loss": 0.5},
    "by_disguise": {
        "upper case": {"trained": True, "changed": 48, "flagged": 0.85, "refused": 0.4, "loss": 0.1},
        "leetspeak": {"trained": False, "changed": 47, "flagged": 0.45, "refused": 0.1, "loss": 0.5},
    },
}
COMPARISON = {
    "rows": 100,
    "models": ["old@0", "tiers@1"],
    "differences": {
        "accuracy": figure(0.1),
        "safe_flagged": figure(0.05),
        "safe_refused": figure(-0.05),
        "risk_recall": figure(0.01),
        "unsafe_recall": {"value": math.nan, "low": math.nan, "high": math.nan},
    },
    "right_in_first_only": 3,
    "right_in_second_only": 13,
    "mcnemar_p": 0.0213,
}


def error(text, source="s"):
    tiers = {"tier": "unsafe", "verdict_tier": "safe", "probability": 0.99}
    return {"text": text, "source": source, "category": "u_zorblax", "verdict": "s_kitchen", **tiers}


@pytest.fixture
def report(tmp_path):
    def write(result=RESULT, worst=()):
        path = tmp_path / "deep" / "report.html"
        before = copy.deepcopy(result)
        write_report(path, result, list(worst))
        assert repr(result) == repr(before)
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]
        return Page(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture
def whole(report):
    return report(RESULT | {"disguised": DISGUISED, "comparison": COMPARISON}, [error("how?"), error(HOSTILE)])


def test_the_file_refers_to_nothing_outside_itself(whole):
    for tag, attributes in whole.elements:
        assert tag not in {"script", "img", "iframe", "object", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href", "action", "srcset"}:
                assert value == "data:," or value.startswith("#"), (tag, value)
    assert not re.search(r"https?:|//|url\(|@import", whole.markup)


def test_links_within_the_file_and_labels_lead_somewhere(whole):
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in whole.elements:
        assert attributes.get("href", "data:,").removeprefix("#") in {*ids, "data:,"}
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)


def test_headers_have_a_scope_and_plots_a_title_and_a_description(whole):
    assert {attributes["scope"] for attributes in whole.all("th")} == {"row", "col"}
    plots = whole.all("svg")
    assert len(plots) == len(whole.all("title")) - 1 == len(whole.all("desc")) == 2
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] for attributes in plots)


def test_a_headline_says_what_it_means_and_one_without_rows_says_so(whole):
    assert "Of 1,000 queries that need care, 966 are noticed and 34 pass as Safe." in whole.lines
    assert "0.946 to 0.986" in whole.text
    after = whole.lines[whole.lines.index("Unsafe recall") :]
    assert after[1:4] == ["–", "no rows", "There are no rows to count this on."]
    assert not re.search(r"\b(None|nan)\b", whole.text)


def test_the_confusion_shows_shares_of_the_row_and_counts(whole):
    assert "90.9 %\n40" in whole.text
    cells = [attributes for attributes in whole.all("td") if "--share" in attributes.get("style", "")]
    assert len(cells) == 16
    assert [at for at, attributes in enumerate(cells) if attributes.get("class") == "right"] == [0, 5, 10, 15]
    assert cells[0]["style"] == "--share:0.909"


def test_groups_are_in_a_useful_order_and_the_small_ones_marked(whole):
    at = whole.text.index
    assert at("s_kitchen") < at("c_flimwick")
    assert at("40-119 characters") < at("120-399 characters")
    assert "(not named)\n3\n*" in whole.text
    assert "<b>little</b>\n90\n0.800" in whole.text


def test_disguises_are_sorted_by_loss_and_marked(whole):
    assert "leetspeak\nno\n47\n−0.500\n0.450\n0.100\nupper case\nyes\n48\n−0.100" in whole.text


def test_a_difference_is_better_worse_or_not_clear(whole):
    rows = whole.text[whole.text.index("This model is") :]
    for name, verdict in {
        "Accuracy\n+0.100\n+0.080 to +0.120": "better",
        "Safe flagged\n+0.050\n+0.030 to +0.070": "worse",
        "Safe refused\n−0.050\n−0.070 to −0.030": "better",
        "Risk recall\n+0.010\n−0.010 to +0.030": "no clear difference",
        "Unsafe recall\n–\nno rows\n–\nno rows": "no clear difference",
    }.items():
        assert f"{name}\n{verdict}" in rows
    assert "exact McNemar p = 0.021." in whole.text


def test_sections_that_were_not_measured_are_left_out(report):
    page = report({key: value for key, value in RESULT.items() if key not in {"command", "time", "libraries"}})
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert not ids & {"disguises", "comparison"}
    assert "No row was judged wrong." in page.lines
    assert "Disguises" not in page.lines
    assert "libraries: torch" not in page.lines


def test_provenance_stands_at_the_end(whole):
    assert whole.text.endswith(
        "seed\n0\ndata: tiers.jsonl\n0f0f\nmachine: cpu\nabacus\nmachine: cores\n–\nlibraries: torch\n2.7"
    )


def test_texts_are_shown_and_never_markup(report):
    page = report(worst=[error(HOSTILE, source=HOSTILE)])
    assert page.lines.count(HOSTILE) == 2
    assert "<script" not in page.markup
    plain = report(worst=[error("x", source="y")])
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]


def test_why_stands_beside_an_error_and_is_never_markup(report):
    example = {"id": "1", "text": HOSTILE + "x" * 300, "category": HOSTILE, "tier": "safe", "similarity": 0.5}
    why = {"words": [{"word": HOSTILE, "weight": 1.25}, {"word": "oven", "weight": 0.5}], "examples": [example]}
    page = report(worst=[error("how?") | {"why": why}, error("none") | {"why": None}])
    assert "<script" not in page.markup
    assert "oven" in page.lines
    assert page.text.count("Weightiest words") == 1
    assert "x" * 200 not in page.text, "an example is cut"


def test_names_from_the_data_are_never_markup_either(report):
    hostile = copy.deepcopy(RESULT)
    hostile["model"] = hostile["command"] = hostile["commit"] = HOSTILE
    hostile["by_source"] = hostile["by_language"] = {HOSTILE: group(1, 1.0)}
    hostile["data"] = {HOSTILE: HOSTILE}
    hostile["disguised"] = DISGUISED | {"by_disguise": {HOSTILE: DISGUISED["by_disguise"]["leetspeak"]}}
    hostile["comparison"] = COMPARISON | {"models": [HOSTILE, HOSTILE]}
    page = report(hostile)
    assert "<script" not in page.markup
    assert page.lines.count(HOSTILE) >= 8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lone \ud83d here", "lone ⟨U+D83D⟩ here"),
        ("abc\u202egnp.exe", "abc⟨U+202E⟩gnp.exe"),
        ("bo\u200bmb\x00\x1b[0m", "bo⟨U+200B⟩mb⟨U+0000⟩⟨U+001B⟩[0m"),
        ("שלום, מה שלומך?", "שלום, מה שלומך?"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),
        ("x" * 400, "x" * 400),
        ("x" * 401, "x" * 400 + "…"),
        ("<" * 500, "<" * 400 + "…"),
        ("", None),
    ],
)
def test_a_text_is_cut_and_what_cannot_be_seen_is_shown(report, text, shown):
    page = report(worst=[error(text)])
    said = page.lines.index(", stated probability 0.990") + 1
    assert page.lines[said] == (shown if shown is not None else "Category")
    assert {"class": "said", "dir": "auto"} in page.all("p")


def test_only_texts_are_made_visible():
    assert visible(0.5) == 0.5
    assert visible(None) == "–"
    assert visible("a\n\tb") == "a\n\tb"


def test_paths_go_through_their_points():
    assert line_path([]) == ""
    assert line_path([(1, 2), (3.25, 4)]) == "M1.0 2.0 L3.2 4.0"


def test_an_operating_point_past_every_budget_stays_within_the_plot(report):
    page = report(RESULT | {"safe_flagged": figure(0.5)})
    (diamond,) = [attributes["d"] for attributes in page.all("path") if attributes.get("class") == "diamond"]
    assert LEFT < float(diamond[1:].split()[0]) < RIGHT
    assert "50.0 %, operating point" in page.lines


class Undeceived(Spoken):
    """Finds everything unsafe, however it is written."""

    def classify(self, texts):
        return super().classify(["u_zorblax"] * len(texts))


@pytest.mark.parametrize("said", ["s_kitchen", "u_zorblax"])
def test_what_the_evaluation_returns_can_be_shown(report, said):
    rows = [Row(said, category, "dev", "") for category in ("s_kitchen", "s_kitchen", said)]
    judged = Judged(Spoken(), rows)
    result = judged.figures(resamples=10)
    result["disguised"] = evaluate_disguises(Undeceived(), rows)
    result["comparison"] = compare(judged, judged, resamples=10)
    page = report(result, judged.worst(2))
    assert f"Evaluation of {result['model']}" in page.lines
