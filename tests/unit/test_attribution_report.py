import json

import numpy as np
import pytest

from attribution.compare import compare
from attribution.render import comparison_html, report_html
from attribution.report import load_report, report_schema, save_report
from attribution.summary import comparison_summary, summary
from attribution.types import HeadId, ReportError
from attribution.visible import visible
from tests.audit_reports import model, report, scores
from tests.unit.html_page import Page

HOSTILE = "<script>alert(\"1\")</script> 'q' </td> & {{ 7 * 7 }} \u202e"


def test_a_saved_report_is_read_back(tmp_path):
    made = report(rich=True)
    save_report(made, tmp_path / "deep" / "r.json")
    read = load_report(tmp_path / "deep" / "r.json")
    assert read == made
    assert read.ships.ranking[0].head == HeadId(1, 3)
    assert isinstance(read.ships.ranking[0].head, HeadId)
    assert json.loads((tmp_path / "deep" / "r.json").read_text())["ships"]["ranking"][0]["head"] == "1.3"
    assert read.ships.per_prompt.unpack() == pytest.approx(scores(), rel=1e-6)
    assert report(keep_prompts=False).ships.per_prompt is None


def test_derived_figures():
    made = report(rich=True)
    assert made.standing_out() == [HeadId(1, 3), HeadId(2, 5)]
    assert made.ships.mean[1][3] == pytest.approx(scores().mean(axis=0)[1, 3])
    assert sum(map(sum, made.ships.mean)) * made.ships.ranking[0].share == pytest.approx(made.ships.mean[1][3])
    assert [share.heads for share in made.parameter_shares] == [1, 3, 5, 10]
    assert made.parameter_shares[0].parameters == 128 * 16 * (2 + 4 / 8)
    assert made.generalized == made.sahara[0].all
    assert made.stability.templates[0].overlap >= 0.4


def test_a_report_says_which_heads_matter_more_than_on_harmless_prompts(tmp_path):
    beside = report().prompts.model_copy(update={"count": 30, "file": "harmless.jsonl"})
    made = report(against=(beside, scores(planted=((1, 3, 1.0),), seed=1, prompts=30)))
    assert made.against.heads == (HeadId(2, 5),)
    assert made.against.prompts == beside
    save_report(made, tmp_path / "r.json")
    assert load_report(tmp_path / "r.json") == made
    assert "1 head matters more here than on 30 harmless prompts: 2.5." in report_html(made)
    nothing = report(against=(beside, scores()))
    assert nothing.against.heads == ()
    assert "nothing points at refusals" in report_html(nothing)
    broken = json.loads((tmp_path / "r.json").read_text())
    broken["against"]["heads"] = ["9.9"]
    (tmp_path / "r.json").write_text(json.dumps(broken))
    with pytest.raises(ReportError, match=r"head 9\.9 is not in a model"):
        load_report(tmp_path / "r.json")


def test_heads_that_were_not_computed_are_null(tmp_path):
    ships = scores()
    ships[:, 0] = np.nan
    save_report(report(ships=ships), tmp_path / "r.json")
    read = load_report(tmp_path / "r.json")
    assert read.ships.mean[0] == (None,) * 8
    assert np.isnan(read.ships.per_prompt.unpack()[:, 0]).all()
    assert "not computed" in report_html(read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema_version=7), "schema_version 7"),
        (lambda data: data.pop("schema_version"), "no schema_version"),
        (lambda data: data.update(surprise=1), "surprise"),
        (lambda data: data["ships"]["mean"].pop(), "4 layers of 8 heads"),
        (lambda data: data["ships"]["ranking"][0].update(head="9.9"), "head 9.9"),
        (lambda data: data["ships"]["ranking"][0].update(head="first"), "layer.head"),
        (lambda data: data["ships"]["per_prompt"].update(float32="AAAA"), "per_prompt"),
        (lambda data: data["model"].update(weights_sha256="../../x"), "weights_sha256"),
    ],
)
def test_a_damaged_report_is_refused_with_the_way_out(tmp_path, change, message):
    save_report(report(), tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    change(data)
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match=message) as caught:
        load_report(tmp_path / "r.json")
    assert "airlock audit heads" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_rubbish_is_no_report(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ReportError):
        load_report(tmp_path / "r.json")
    with pytest.raises(ReportError, match="does not exist"):
        load_report(tmp_path / "none.json")


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        save_report(report(), tmp_path / "file" / "r.json")


def test_the_schema_names_every_part():
    schema = report_schema()
    assert schema["additionalProperties"] is False
    assert {"model", "prompts", "settings", "ships", "seconds"} <= set(schema["required"])
    assert schema["$defs"]["Ranked"]["properties"]["head"]["pattern"] == r"^\d+\.\d+$"


def test_the_page_stands_alone_and_says_what_was_found():
    page = Page(report_html(report(rich=True)))
    assert not page.all("script")
    assert not any(
        value and "//" in value for _, found in page.elements for key, value in found.items() if key != "content"
    )
    assert "Head 1.3 leads" in page.text
    assert "Without the first 16 heads" in page.text
    assert page.markup.count("<rect") > 2 * 32
    plain = Page(report_html(report()))
    assert "was not measured" in plain.text
    assert "Sahara" not in [line for line in plain.lines if len(line) < 10]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            (0, 1, 2),
            "Without the first 2 heads the model answers 58 % of the harmful prompts, with all of them 4 %, wi",
        ),
        (
            (1, 2),
            "Without the first 2 heads the model answers 58 % of the harmful prompts, without 2 random heads 5 %.",
        ),
        ((0,), None),
    ],
)
def test_what_all_heads_answer_is_said_only_if_it_was_measured(counts, said):
    rich = report(rich=True).behaviour
    points = tuple(point for point in rich.points if point.k in counts)
    found = summary(report(behaviour=rich.model_copy(update={"points": points}))).found
    asked = [line for line in found if "harmful prompts" in line]
    assert [line[: len(said)] for line in asked] == [said] if said else not asked


def screened(kept, seed=0):
    """One head at 1 and others about 0.01, of which so many were computed."""
    ships = scores(8, 8, planted=((1, 3, 1.0),), noise=0.01, seed=seed)
    ships.reshape(len(ships), -1)[:, kept:] = np.nan
    return report(8, 8, ships=ships)


def test_figures_of_a_screen_are_said_to_be_of_the_heads_computed():
    said = summary(screened(20))
    assert said.headline.endswith("of the effect of the 20 heads computed.")
    assert said.found[0].startswith("1 head of the 20 computed scores above")
    assert "The effect of the 20 heads computed is spread as if over" in " ".join(said.found)
    assert "rank the 20 heads computed with a correlation" in " ".join(said.sure)
    whole = summary(screened(64))
    assert whole.headline.endswith("of all heads' effect.")
    assert whole.found[0].startswith("1 head of 64 scores above")
    assert "computed" not in " ".join((whole.headline, *whole.found, *whole.sure))
    assert screened(20).computed == 20


def many(left, layers=16, heads=16):
    """120 heads at 1 and noise, of which all but the first so many have lost their effect."""
    ships = scores(layers, heads, planted=(), noise=0.001)
    flat = ships.reshape(len(ships), -1)
    flat[:, :120] += np.where(np.arange(120) < left, 1.0, 0.0)
    return report(layers, heads, ships=ships)


def test_more_heads_can_stand_out_than_the_ranking_names():
    before, after = many(120), many(70)
    assert len(before.ships.ranking) == 50
    assert (len(before.standing_out()), len(after.standing_out())) == (120, 70)
    assert before.standing_out()[:50] == before.top(50)
    assert summary(before).found[0].startswith("120 heads of 256 score above")
    assert summary(before).headline.endswith(", and 119 more stand out.")
    found = compare(before, after)
    assert (found.before.standing_out, found.after.standing_out) == (120, 70)
    assert {head.head for head in found.of("vanished")} == {HeadId(*divmod(at, 16)) for at in range(70, 120)}
    assert not found.of("appeared")


def test_a_head_beyond_the_ranking_may_be_the_only_one_that_stands_out():
    ships = scores(32, 32, planted=((31, 31, 0.5),), noise=0.001)
    ships[:6].reshape(6, -1)[:, :60] += 2.4  # a few prompts lift sixty heads above it
    made = report(32, 32, ships=ships)
    assert made.standing_out() == [HeadId(31, 31)]
    assert HeadId(31, 31) not in made.top(50)
    assert summary(made).headline.startswith("Head 31.31 stands out of the noise with 1% of")


def test_noise_has_no_leading_head():
    page = Page(report_html(report(ships=scores(planted=()))))
    assert "No head stands out of the noise." in page.text


def test_a_head_that_a_few_prompts_lift_does_not_lead():
    ships = scores(planted=((2, 5, 0.5),))
    ships[:2, 0, 0] += 7
    made = report(ships=ships)
    assert made.ships.ranking[0].head == HeadId(0, 0)
    assert made.standing_out() == [HeadId(2, 5)]
    assert "Head 2.5 stands out of the noise with" in report_html(made)


def test_names_are_data_not_markup():
    changed = report(
        rich=True,
        model=model(name=HOSTILE),
        prompts=report().prompts.model_copy(update={"categories": {HOSTILE: 24}, "file": HOSTILE}),
        provenance={HOSTILE: {"x": HOSTILE}},
    )
    page = Page(report_html(changed))
    assert not page.all("script")
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.markup
    assert "⟨U+202E⟩" in page.text
    both = Page(comparison_html(compare(changed, changed)))
    assert not both.all("script")
    assert visible(None) == "–"


def test_a_list_is_shown_as_people_write_it_and_an_empty_one_as_a_dash():
    page = report_html(report(provenance={"heads": ["1.3", "2.5"], "focus": []}))
    assert "<bdi>1.3, 2.5</bdi>" in page
    assert "<bdi></bdi>" not in page


def test_what_a_head_of_sahara_took_away_has_the_sign_of_the_page():
    steps = [(HeadId(0, at), np.full((4, 8), degrees)) for at, degrees in enumerate((8.0, 5.0, 4.98))]
    said = Page(report_html(report(steps=steps))).text
    assert "added −3.0°" in said
    assert "added +0.0°" in said


def test_a_large_model_is_drawn_whole():
    page = report_html(report(40, 64, 4, ships=scores(40, 64, 4)))
    assert page.count("<rect") >= 40 * 64


def test_what_appeared_vanished_and_moved():
    before = report(ships=scores(planted=((1, 3, 1.0), (2, 5, 0.5), (0, 0, 0.6))), name="base")
    ships = before.ships.per_prompt.unpack()
    ships[:, 1, 3] *= 0.5
    ships[:, 3, 7] += ships[:, 2, 5]
    ships[:, 2, 5] = ships[:, 2, 4]
    found = compare(before, report(ships=ships, name="tuned"))
    assert found.paired
    changes = {head.head: head.change for head in found.heads}
    assert changes.pop(HeadId(3, 7)) == "appeared"
    assert changes.pop(HeadId(2, 5)) == "vanished"
    assert changes.pop(HeadId(1, 3)) == "fell"
    assert HeadId(0, 0) in changes
    assert set(changes.values()) == {"stayed"}
    page = Page(comparison_html(found))
    assert "1 head appeared, 1 vanished." in page.text
    assert "base" in page.text
    assert "tuned" in page.text


def test_a_head_that_one_report_did_not_compute_is_no_head_that_stayed():
    whole = scores(planted=((1, 3, 1.0), (2, 5, 0.5), (0, 0, 0.6)))
    sides = []
    for missing in ((2, 5), (0, 0)):
        ships = whole.copy()
        ships[:, *missing] = np.nan
        sides.append(report(ships=ships))
    found = compare(*sides)
    assert {head.change for head in found.heads} == {"stayed"}
    assert (found.only_after, found.only_before) == ((HeadId(2, 5),), (HeadId(0, 0),))
    assert (found.before.computed, found.after.computed, found.computed_in_both) == (31, 31, 30)
    found = found.model_copy(update={"same_weights": False})
    said = comparison_summary(found)
    assert said.headline == (
        "Of the heads computed in both the same stand out; 2 heads that stand out in one report were not computed in "
        "the other."
    )
    assert "Stand out before, not computed after: 0.0." in said.found
    assert "Stand out after, not computed before: 2.5." in said.found
    assert "The rankings of the 30 heads computed in both correlate by" in " ".join(said.found)
    assert "31 heads were computed before and 31 after, 30 of them in both" in " ".join(said.sure)
    assert "2 heads that stand out in one report" in Page(comparison_html(found)).text


def test_screens_alike_leave_nothing_out():
    ships = scores()
    ships[:, 0] = np.nan
    found = compare(report(ships=ships), report(ships=ships, name="tuned"))
    assert (found.only_before, found.only_after, found.computed_in_both) == ((), (), 24)
    said = comparison_summary(found)
    assert said.headline == "The same heads stand out in both."
    assert "were computed before" not in " ".join(said.sure)


def test_overlaps_of_screens_are_of_the_heads_computed_in_both():
    whole = scores(8, 32, planted=tuple((at, at, 1.0 + at) for at in range(8)))
    ships = np.full_like(whole, np.nan)
    for at in range(5):
        ships[:, at, at] = whole[:, at, at]
    found = compare(report(8, 32, ships=ships), report(8, 32, ships=ships, name="tuned"))
    assert [(each.k, each.share, each.by_chance) for each in found.overlaps] == [(1, 1, 0.2), (3, 1, 0.6), (5, 1, 1)]
    assert "of 5 heads computed in both; 100 % by chance" in Page(comparison_html(found)).text
    ships[:, 4, 4], ships[:, 7, 7] = np.nan, whole[:, 7, 7]  # the first of the other, which this one does not know
    found = compare(report(8, 32, ships=ships), report(8, 32, ships=whole))
    assert [(each.k, each.share, each.by_chance) for each in found.overlaps] == [(1, 1, 0.2), (3, 1, 0.6), (5, 1, 1)]
    both = compare(*[report(8, 32, ships=whole)] * 2).overlaps
    assert [(each.k, each.by_chance) for each in both] == [(k, k / 256) for k in (1, 3, 5, 10, 20)]


def test_a_report_beside_itself_stays_as_it_is():
    same = report(rich=True)
    found = compare(same, same)
    assert {head.change for head in found.heads} == {"stayed"}
    assert found.spearman == pytest.approx(1)
    assert found.same_group
    assert all(overlap.share == 1 for overlap in found.overlaps)


def test_other_noise_moves_no_head():
    one, other = (report(ships=scores(planted=((1, 3, 1.0),), seed=seed)) for seed in (0, 1))
    found = compare(one, other)
    assert not found.of("appeared")
    assert not found.of("vanished")
    assert {head.head for head in found.of("rose") + found.of("fell")} <= {HeadId(1, 3)}


def test_without_single_scores_intervals_must_lie_apart():
    one, other = (report(ships=scores(planted=((1, 3, size),)), keep_prompts=False) for size in (1.0, 1.05))
    found = compare(one, other)
    assert not found.paired
    assert {head.change for head in found.heads} == {"stayed"}


def test_reports_that_cannot_be_compared():
    one = report()
    with pytest.raises(ReportError, match="one architecture"):
        compare(one, report(layers=5, ships=scores(5)))
    with pytest.raises(ReportError, match="method query and value"):
        compare(one, report(settings=one.settings.model_copy(update={"method": "value"})))
    with pytest.raises(ReportError, match="epsilon"):
        compare(one, report(settings=one.settings.model_copy(update={"epsilon": 0.0})))
    others = report(prompts=one.prompts.model_copy(update={"sha256": "12" * 32}))
    with pytest.raises(ReportError, match="--other-prompts"):
        compare(one, others)
    assert not compare(one, others, other_prompts=True).paired


def test_a_report_of_too_few_prompts_is_not_compared():
    one = report()
    few = report(ships=scores()[:4], prompts=one.prompts.model_copy(update={"count": 4}))
    for reports in ((one, few), (few, one)):
        with pytest.raises(ReportError, match=r"is of 4 prompts, too few .* audit with 5 or more"):
            compare(*reports, other_prompts=True)
    assert '<span class="value">–</span><p>of' in report_html(few)


def test_reports_of_other_model_types_cannot_be_compared():
    with pytest.raises(ReportError, match=r"model types 'llama' and 'qwen2' .* one architecture"):
        compare(report(), report(model=model(family="qwen2")))


def test_where_no_head_stands_out_none_is_said_to_stand_out_in_both():
    noise = scores(planted=())
    less = noise.copy()
    less[:, 0, :2] *= 0.2
    found = compare(report(ships=noise), report(ships=less, name="tuned"), top=32)
    assert {head.change for head in found.heads} == {"stayed"}
    said = comparison_summary(found)
    assert said.headline == "No head stands out in either report."
    counted = next(line for line in said.found if line.startswith("Of the 32 heads looked at"))
    assert counted.startswith("Of the 32 heads looked at, 0 that stand out in both scored clearly")
    assert counted.endswith("and 2 that stand out in neither.")


def test_a_head_that_stands_out_in_one_only_without_a_clear_change_is_not_in_both():
    noise = scores(planted=((1, 3, 1.0),))
    chance = report().ships.noise.model_copy(update={"chance": 5.0})
    before = report(ships=noise)
    after = report(ships=noise, name="tuned")
    after = after.model_copy(update={"ships": after.ships.model_copy(update={"noise": chance})})
    said = comparison_summary(compare(before, after)).headline
    assert said.startswith("None appeared or vanished: where one stands out in one report only")


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        (("float32", "bfloat16"), "held in float32 before and in bfloat16 after"),
        (("float16", "float16"), "The weights were held in float16, whose roundings"),
        (("float32", "float32"), None),
    ],
)
def test_number_formats_that_move_scores_are_named(dtypes, words):
    sides = [report(model=model(name=name, dtype=dtype)) for name, dtype in zip("ab", dtypes, strict=True)]
    said = " ".join(comparison_summary(compare(*sides)).sure)
    assert words in said if words else "held in" not in said
