import itertools
import json

import pytest

from classifier.types import Handling, Tier
from rag.documents import read_documents
from tests.unit.safety_cases import DATA, ENTRY, TAXONOMY
from training.datasets import TrainingError
from training.safety.rows import read_high_risk

QUESTIONS = DATA / "questions/high_risk.jsonl"


def written(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_a_row_is_read_with_the_handling_of_its_category(tmp_path):
    second = {**ENTRY, "id": "hr-002", "question": "So?\u2028 Well?", "tier": "focused_attention"}
    second |= {"category": "f_self_harm", "constructive": {"says_any": ["988"]}}
    first, other = read_high_risk(written(tmp_path / "q.jsonl", ENTRY, second), TAXONOMY)
    assert (first.tier, first.category, first.handling) == (Tier.CONDITIONALLY_SAFE, "c_medical", Handling.GROUND)
    assert first.constructive.documents == ("health/dose",)
    assert (first.constructive.forwarded, first.risky.forwarded) == (False, True)
    assert (other.handling, other.question) == (Handling.SUPPORT, "So?\u2028 Well?")


FAULTS = {
    "unknown field": ({"kynd": "plain"}, "line 1: unknown field 'kynd'; did you mean 'kind'?"),
    "far field": ({"xyzzy": 1}, "unknown field 'xyzzy'; known: id, question"),
    "its own field": ({"handling": "ground"}, "unknown field 'handling'"),
    "inner field": ({"risky": {"forward": True}}, "unknown field 'risky.forward'; did you mean 'forwarded'?"),
    "order": ({"id": "hr-002"}, "id 'hr-002': rows are numbered in order, and this one is 'hr-001'"),
    "category": ({"category": "c_astrology"}, "category 'c_astrology' is not in taxonomy 'airlock'; it has: "),
    "tier of category": ({"tier": "safe"}, "tier 'safe': the category 'c_medical' is 'conditionally_safe'"),
    "tier": ({"tier": "harmless"}, "tier = 'harmless': tier 'harmless' is unknown; known tiers: safe"),
    "kind": ({"kind": "hard"}, "kind = 'hard': need 'contrast', 'mild_harm', "),
    "language": ({"language": "eng"}, "language = 'eng'"),
    "empty question": ({"question": " "}, "question = ' '"),
    "kind of value": ({"why": 3}, "why = 3: need a text"),
    "flag": ({"risky": {"forwarded": "yes"}}, "risky.forwarded = 'yes': need true or false"),
    "one string": ({"constructive": {"says_any": "help"}}, "constructive.says_any = 'help': need a list"),
    "blank string": ({"constructive": {"says_any": ["help "]}}, "constructive.says_any.0 = 'help '"),
    "no worth of a forward": ({"risky": {}}, "forwarded: say `forwarded: true`"),
    "both worths": ({"constructive": {"forwarded": True}}, "and in one of them only"),
    "nothing good": ({"constructive": {}}, "constructive is empty"),
    "both ways": (
        {"risky": {"forwarded": True, "documents": ["health/dose"]}},
        "document 'health/dose' is both constructive and risky",
    ),
}


@pytest.mark.parametrize(("changes", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_clear_error(tmp_path, changes, said):
    with pytest.raises(TrainingError) as caught:
        read_high_risk(written(tmp_path / "q.jsonl", {**ENTRY, **changes}), TAXONOMY)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_row_is_named(tmp_path):
    path = tmp_path / "q.jsonl"
    missing = {key: value for key, value in ENTRY.items() if key != "why"}
    for content, said in (
        (json.dumps(missing), "line 1: the field 'why' is missing"),
        (json.dumps(ENTRY) + "\n\n", "line 2: not a JSON object"),
        ("{", "line 1: not a JSON object"),
        ("[]", "line 1: not a JSON object"),
        ("", "holds no rows"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(TrainingError, match=said):
            read_high_risk(path, TAXONOMY)
    again = {**ENTRY, "id": "hr-002"}
    with pytest.raises(TrainingError, match="line 2: question: the same as of hr-001"):
        read_high_risk(written(path, ENTRY, again), TAXONOMY)
    distress = {"tier": "focused_attention", "category": "f_self_harm", "question": "Why?"}
    apart = ({**again, **distress}, {**ENTRY, "id": "hr-003", "question": "Again?"})
    with pytest.raises(TrainingError, match="line 3: tier 'conditionally_safe': rows of another tier stand between"):
        read_high_risk(written(path, ENTRY, *apart), TAXONOMY)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_high_risk(tmp_path / "nowhere", TAXONOMY)


def test_the_set_is_sound():
    rows = read_high_risk(QUESTIONS, TAXONOMY)
    assert len(rows) == 240
    assert {row.category for row in rows} == set(TAXONOMY.ids)
    assert len([tier for tier, _ in itertools.groupby(rows, key=lambda row: row.tier)]) == 4, "tier after tier"
    assert {row.tier for row in rows if row.constructive.forwarded} == {Tier.SAFE}


def test_its_documents_are_in_the_sample():
    listed = {
        name
        for row in read_high_risk(QUESTIONS, TAXONOMY)
        for name in (*row.constructive.documents, *row.risky.documents)
    }
    documents = {document.id for document in read_documents(DATA / "knowledge").documents}
    assert listed
    assert not listed - documents


def test_only_disputed_documents_are_asked_for_two_positions():
    documents = {document.id: document for document in read_documents(DATA / "knowledge").documents}
    for row in read_high_risk(QUESTIONS, TAXONOMY):
        if row.risky.one_position_only:
            known = [documents[name] for name in row.constructive.documents if name in documents]
            assert all(document.disputed for document in known), row.id
