import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from classifier.taxonomy import Category, Taxonomy, tier_sums
from classifier.types import ClassifierError, Handling, Tier
from tests.classifier_cases import TAXONOMY

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "taxonomies" / "airlock.yaml"
SHARED = ROOT.parent / "shared" / "datasets" / "taxonomy.yaml"
GOOD = """
name: two
categories:
  a: {tier: safe, definition: First.}
  b: {tier: unsafe, definition: Second., handling: guide}
"""


def load(tmp_path, text):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text, encoding="utf-8")
    return Taxonomy.load(path)


def test_tiers_are_ordered_by_risk():
    assert Tier.SAFE < Tier.CONDITIONALLY_SAFE < Tier.FOCUSED_ATTENTION < Tier.UNSAFE
    assert [tier.label for tier in Tier] == ["safe", "conditionally_safe", "focused_attention", "unsafe"]


@pytest.mark.parametrize("tier", Tier)
def test_a_label_names_its_tier(tier):
    assert Tier.parse(tier.label) is tier


@pytest.mark.parametrize("label", ["", "SAFE", "Safe", "safe ", "conditionally safe", "0"])
def test_another_label_is_refused_with_the_known_ones(label):
    with pytest.raises(ClassifierError, match="known tiers: safe, conditionally_safe, focused_attention, unsafe"):
        Tier.parse(label)


def test_a_taxonomy_is_read_in_order(tmp_path):
    taxonomy = load(tmp_path, GOOD)
    assert taxonomy.ids == ("a", "b")
    assert taxonomy.tier_indices == (0, 3)
    assert taxonomy.category("b") == Category("b", Tier.UNSAFE, "Second.", Handling.GUIDE)
    with pytest.raises(ClassifierError, match=r"'c' is not in taxonomy 'two'; it has: a, b"):
        taxonomy.category("c")


@pytest.mark.parametrize(
    ("tier", "handling"),
    [("safe", "answer"), ("conditionally_safe", "ground"), ("focused_attention", "balance"), ("unsafe", "refuse")],
)
def test_each_tier_has_a_handling_of_its_own(tier, handling):
    taxonomy = Taxonomy.from_dict({"name": "n", "categories": {"a": {"tier": tier, "definition": "d"}}})
    assert taxonomy.categories[0].handling == handling


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\ncategories: {a: {tier: risky, definition: d}}", ["category 'a'", "tier 'risky'", "unsafe"]),
        ("name: x\ncategories: {a: {tier: null, definition: d}}", ["category 'a'", "tier"]),
        ("categories: {a: {tier: safe, definition: d, handling: ban}}", ["category 'a'", "handling 'ban'", "refuse"]),
        ("categories: {a: {tier: safe, definition: d, handling: [x]}}", ["category 'a'", "handling"]),
        ("categories: {a: {tier: safe, definition: d, note: n}}", ["category 'a'", "unknown key 'note'", "handling"]),
        ("categories: {a: {tier: safe, definition: d, 1: n, x: n}}", ["category 'a'", "unknown key '1'"]),
        ("categories: {a: {tier: safe}}", ["category 'a'", "definition"]),
        ("categories: {a: {definition: d}}", ["category 'a'", "tier"]),
        ("categories: {a: safe}", ["category 'a'", "tier", "definition"]),
        ("categories: {a: null}", ["category 'a'", "tier", "definition"]),
        ("extra: 1\ncategories: {a: {tier: safe, definition: d}}", ["unknown key 'extra'", "name"]),
        ("1: 1\nz: 1\ncategories: {a: {tier: safe, definition: d}}", ["unknown key '1'"]),
        ("name: x\ncategories: {}", ["no categories"]),
        ("name: x", ["categories"]),
        ("", ["categories"]),
        ("[a, b]", ["categories"]),
        ("categories: [a, b]", ["categories"]),
        ("categories: {a: {tier: safe, definition: d}, a: {tier: unsafe, definition: d}}", ["'a'", "more than once"]),
        ("categories: {1: {tier: safe, definition: d}, '1': {tier: unsafe, definition: d}}", ["1", "more than once"]),
        ("categories: {a: {tier: safe, tier: unsafe, definition: d}}", ["'tier'", "more than once"]),
        ("categories: {a: [", ["not readable YAML"]),
        ("name: 2001-99-99\ncategories: {a: {tier: safe, definition: d}}", ["not readable YAML"]),
        ("name: !!python/object:os.system x", ["not readable YAML"]),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path, text, named):
    with pytest.raises(ClassifierError) as caught:
        load(tmp_path, text)
    assert "taxonomy.yaml" in str(caught.value) or "taxonomy 'x'" in str(caught.value)
    for words in named:
        assert words in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(ClassifierError, match=r"none\.yaml does not exist"):
        Taxonomy.load(tmp_path / "none.yaml")
    with pytest.raises(ClassifierError, match="not readable"):
        Taxonomy.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ClassifierError, match=r"latin\.yaml is not readable YAML"):
        Taxonomy.load(tmp_path / "latin.yaml")


def test_categories_built_in_code_are_checked_too():
    one = Category("a", Tier.SAFE, "d", Handling.ANSWER)
    with pytest.raises(ClassifierError, match="names a more than once"):
        Taxonomy("n", (one, one))
    with pytest.raises(ClassifierError, match="no categories"):
        Taxonomy("n", ())


@pytest.mark.parametrize(
    "changed",
    [
        GOOD.replace("name: two", "name: three"),
        GOOD.replace("  b:", "  bb:"),
        GOOD.replace("unsafe", "focused_attention"),
        GOOD.replace("Second.", "Second!"),
        GOOD.replace("guide", "refuse"),
        GOOD + "  c: {tier: safe, definition: Third.}\n",
    ],
)
def test_another_meaning_is_another_version(tmp_path, changed):
    before = load(tmp_path, GOOD).version
    assert len(before) == 12
    assert load(tmp_path, changed).version != before


def test_another_order_is_another_version():
    assert dataclasses.replace(TAXONOMY, categories=TAXONOMY.categories[::-1]).version != TAXONOMY.version


@pytest.mark.parametrize(
    "formatted",
    [
        "# a comment\n" + GOOD,
        GOOD.replace("tier: safe, definition: First.", "definition: 'First.', tier: safe, handling: answer"),
        GOOD.replace("{tier: unsafe, definition: Second., handling: guide}", "\n    {handling: guide, tier: unsafe,\n"
                     "     definition: Second.}"),
        yaml.safe_dump(yaml.safe_load(GOOD), sort_keys=False, default_flow_style=False),
    ],
)  # fmt: skip
def test_another_form_is_the_same_version(tmp_path, formatted):
    assert load(tmp_path, formatted).version == load(tmp_path, GOOD).version


@given(
    st.lists(
        st.builds(Category, st.text(min_size=1), st.sampled_from(Tier), st.text(), st.sampled_from(Handling)),
        min_size=1,
        max_size=5,
        unique_by=lambda category: category.id,
    )
)
def test_a_dictionary_gives_the_taxonomy_back(categories):
    taxonomy = Taxonomy("näme", tuple(categories))
    assert Taxonomy.from_dict(taxonomy.as_dict()) == taxonomy


@pytest.mark.parametrize("taxonomy", [TAXONOMY, Taxonomy.load(SHIPPED)], ids=["toy", "shipped"])
def test_a_saved_taxonomy_is_the_same(tmp_path, taxonomy):
    taxonomy.save(tmp_path / "t.yaml")
    assert Taxonomy.load(tmp_path / "t.yaml") == taxonomy


def test_nothing_can_be_changed():
    for frozen, field in ((TAXONOMY, "name"), (TAXONOMY.categories[0], "tier")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, field, "x")


def test_the_probability_of_a_tier_is_the_sum_of_its_categories():
    assert tier_sums([0.1, 0.2, 0.3, 0.35, 0.05], TAXONOMY) == {
        Tier.SAFE: pytest.approx(0.55),
        Tier.CONDITIONALLY_SAFE: 0.3,
        Tier.FOCUSED_ATTENTION: 0.05,
        Tier.UNSAFE: 0.1,
    }
    with pytest.raises(ValueError, match="zip"):
        tier_sums([1.0], TAXONOMY)


def test_the_shipped_taxonomy_has_its_31_categories_in_all_tiers():
    taxonomy = Taxonomy.load(SHIPPED)
    assert len(taxonomy.categories) == 31
    assert {category.tier for category in taxonomy.categories} == set(Tier)
    assert {category.tier for category in taxonomy.categories if category.handling is Handling.ANSWER} == {Tier.SAFE}
    assert all(len(category.definition) > 20 for category in taxonomy.categories)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not on this machine")
def test_the_shipped_taxonomy_has_the_tiers_of_the_labelled_data():
    labelled = yaml.safe_load(SHARED.read_text(encoding="utf-8"))["categories"]
    shipped = {category.id: category.tier.label for category in Taxonomy.load(SHIPPED).categories}
    assert shipped == {entry["id"]: entry["tier"] for entry in labelled}
