"""What Airlock says in its own words: in whose language, in which order, with which help lines, and where."""

import re
from pathlib import Path

import pytest
import yaml

from classifier.taxonomy import Taxonomy
from classifier.types import Handling, Tier
from guard.answers import AnswerTexts, _help_lines, _shipped
from guard.config import load_config
from guard.errors import ConfigError
from guard.language import Detector
from guard.texts import LINE_KINDS, Answers, fill
from guard.types import Decision, Note, Route
from rag.types import GroundedAnswer, Premise
from tests.doubles import QUOTE, citation, verdict

TAXONOMY = Taxonomy.load(Path(__file__).parents[2] / "data/taxonomies/airlock.yaml")
NUMBER = re.compile(r"#?\d[\d -]*\d")
LANGUAGES = {"en", "zh", "de", "fr", "es", "pt", "ja", "ar", "ru", "hi"}


def decision(category="u_hate", language=None, rule="r", distress=None):
    return Decision(Route.REFUSE, rule, verdict(category=category), spoken=lambda: language, distress=distress)


def texts(says=None, **own):
    return AnswerTexts(Answers.model_validate(own), says)


def kinds(found):
    return {kind for kind, value in found.model_dump().items() if value is not None}


# The shipped texts


def test_every_language_has_the_same_texts():
    shipped = _shipped()
    assert set(shipped) == LANGUAGES
    english = shipped["en"]
    for language, found in shipped.items():
        assert kinds(found.default) == kinds(english.default), language
        assert set(found.categories) == set(english.categories), language
        assert set(found.rules) == set(english.rules), language
        assert set(found.phrases.labels) == set(LINE_KINDS), language
        for category, each in found.categories.items():
            assert kinds(each) == kinds(english.categories[category]), (language, category)


def test_every_category_of_the_taxonomy_that_needs_a_text_has_it():
    categories = _shipped()["en"].categories
    assert set(categories) <= set(TAXONOMY.ids)
    for category in TAXONOMY.categories:
        found = kinds(categories[category.id]) if category.id in categories else set()
        if category.handling is Handling.SUPPORT:
            assert {"comfort", "hand_over"} <= found, category.id
        elif category.tier is Tier.UNSAFE:
            assert "refuse" in found, category.id
        elif category.tier is Tier.CONDITIONALLY_SAFE:
            assert "abstain" in found, category.id
        elif category.handling is Handling.BALANCE:
            assert {"opening", "abstain", "hand_over"} <= found, category.id


def test_each_text_is_in_its_language_and_no_two_are_the_same():
    detector = Detector(LANGUAGES)
    said = []
    for language, found in _shipped().items():
        for each in (found.default, *found.categories.values()):
            said += [(language, text) for text in each.model_dump().values() if text is not None]
    assert [(language, text) for language, text in said if detector.language(text) != language] == []
    assert len({text for _, text in said}) == len(said)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_what_is_said_to_a_person_in_danger_names_help(language):
    categories = _shipped()[language].categories
    for category in TAXONOMY.categories:
        if category.handling is Handling.SUPPORT:
            assert "{emergency}" in categories[category.id].comfort, category.id
    assert "{crisis}" in categories["f_self_harm"].comfort
    assert "{crisis}" in categories["u_self_harm_promotion"].refuse
    assert "{abuse}" in categories["f_abuse_trauma"].comfort
    assert "{child}" in categories["f_minor_user"].comfort
    assert "{child}" in categories["u_child_exploitation"].refuse
    assert "{emergency}" in categories["u_weapons_violence"].refuse
    assert "{emergency}" in categories["c_medical"].condition


def test_no_shipped_text_holds_a_number_of_one_country():
    """Numbers come from the table of help lines, so that nobody is sent to another country's."""
    for language, found in _shipped().items():
        for each in (found.default, *found.categories.values()):
            for text in each.model_dump().values():
                assert not any(character.isdigit() for character in text or ""), (language, text)


def test_every_help_line_names_its_source_and_every_country_its_emergency_number():
    for country, lines in _help_lines().items():
        assert lines["emergency"], country
        for kind, each in lines.items():
            assert kind == "emergency" or all(line.source and line.name for line in each), country


# Which text is said


def test_the_askers_language_comes_first_then_the_configured_one_then_english():
    shipped = _shipped()
    assert texts().text("refuse", decision(language="de")) == shipped["de"].categories["u_hate"].refuse
    assert texts().text("refuse", decision()) == shipped["en"].categories["u_hate"].refuse
    assert texts(language="fr").text("refuse", decision()) == shipped["fr"].categories["u_hate"].refuse
    assert texts(language="fr").text("refuse", decision(language="it")) == shipped["fr"].categories["u_hate"].refuse
    assert texts(language="fr").text("refuse", decision(language="de")) == shipped["de"].categories["u_hate"].refuse
    assert texts().text("refuse", Decision(Route.REFUSE, "r", spoken=lambda: "zh")) == shipped["zh"].default.refuse


def test_a_text_that_can_be_read_comes_before_one_of_the_category():
    found = texts(default={"refuse": {"it": "No."}})
    assert found.text("refuse", decision(language="it")) == "No."
    assert found.text("refuse", decision(language="de")) == _shipped()["de"].categories["u_hate"].refuse


def test_the_operators_texts_win_and_the_shipped_ones_fill_in():
    found = texts(
        {"mute": "the rule's", "ruled": {"de": "Regel"}},
        default={"refuse": "mine"},
        categories={"u_hate": {"refuse": "no hate"}, "u_sexual": {"refuse": {"de": "Nein.", "it": "No."}}},
    )

    def said(kind, category, language=None, rule="unsafe"):
        return found.text(kind, decision(category, language, rule))

    shipped = _shipped()
    assert said("refuse", "u_hate") == said("refuse", "u_hate", "ja") == "no hate"
    assert said("refuse", "u_hate", rule="mute") == said("hand_over", "u_hate", "ja", "mute") == "the rule's"
    assert said("refuse", "u_hate", "de", "ruled") == "Regel"
    assert said("refuse", "u_hate", "fr", "ruled") == "no hate"
    assert said("stopped", "u_hate", rule="mute") == shipped["en"].default.stopped
    assert said("refuse", "unknown") == said("refuse", "unknown", "ja") == "mine"
    assert said("refuse", "u_sexual", "de") == "Nein."
    assert said("refuse", "u_sexual", "it") == "No."
    assert said("refuse", "u_sexual", "fr") == fill(shipped["fr"].categories["u_sexual"].refuse, found._values["fr"])
    assert said("abstain", "u_hate") == shipped["en"].default.abstain


def test_the_default_rule_on_unreadable_text_speaks_every_language_unless_the_operator_does():
    assert texts().text("refuse", decision(language="es", rule="unreadable")) == _shipped()["es"].rules["unreadable"]
    mine = texts({"unreadable": "What?"})
    assert mine.text("refuse", decision(language="es", rule="unreadable")) == "What?"


# Help lines


def test_help_lines_are_those_of_the_country():
    found = texts(country="GB")
    said = found.text("comfort", decision("f_self_harm"))
    assert "999" in said
    assert "Samaritans 116 123" in said
    assert "findahelpline" not in said
    anywhere = texts().text("comfort", decision("f_self_harm"))
    assert "112" in anywhere
    assert "findahelpline.com" in anywhere
    german = found.text("comfort", decision("f_self_harm", "de"))
    assert "Samaritans 116 123" in german
    assert "999" in german


def test_what_a_country_lacks_is_named_in_general():
    said = texts(country="CA").text("comfort", decision("f_abuse_trauma"))
    assert "911" in said
    assert "findahelpline.com" in said


def test_the_operator_replaces_and_adds_help_lines():
    own = {
        "GB": {"crisis": [{"name": "Our {line}", "contact": "12345"}]},
        "FI": {"emergency": ["112"], "child": ["116 111"]},
    }
    british = texts(country="GB", help_lines=own, default={"comfort": "{crisis}|{child}|{{x}}"})
    assert british.text("comfort", decision()) == "Our {line} 12345|Childline 0800 1111|{x}"
    finnish = texts(country="FI", help_lines=own, default={"comfort": "{help_lines}"})
    assert finnish.text("comfort", decision()).splitlines() == [
        "Emergency: 112",
        f"Someone to talk to: {_shipped()['en'].phrases.crisis}",
        "For children and young people: 116 111",
    ]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_help_lines_without_a_country_are_international(language):
    lines = texts(language=language, default={"comfort": "{help_lines}"}).text("comfort", decision()).splitlines()
    assert "findahelpline.com" in lines[1]
    assert "childhelplineinternational.org" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_number_of_the_international_text_is_in_the_table(language):
    table = {line.contact for lines in _help_lines().values() for each in lines.values() for line in each}
    known = {number for contact in table for number in NUMBER.findall(contact)}
    for kind in LINE_KINDS:
        numbers = NUMBER.findall(getattr(_shipped()[language].phrases, kind))
        assert set(numbers) <= known, (language, kind)


# Replies


def test_a_person_in_distress_is_told_first_where_help_is():
    found = texts(country="GB")
    for kind in ("refuse", "hand_over", "abstain", "stopped", "unavailable"):
        reply = found.reply(kind, decision("c_medical", "fr", distress="f_self_harm"), refused=kind == "refuse")
        comfort, rest = reply.text.split("\n\n")
        assert "Samaritans" in comfort
        assert rest == found.text(kind, decision("c_medical", "fr"))
        assert reply.refused is (kind == "refuse")
        assert found.reply(kind, decision("c_medical", "fr")).text == rest
    silent = texts(categories={"f_self_harm": {"comfort": ""}})
    assert silent.comfort(decision(distress="f_self_harm")) == ""


def test_a_distress_of_an_unknown_category_is_comforted_too():
    assert "112" in texts().comfort(decision(distress="mine"))


def grounded(category, answer, found=None, **more):
    return (found or texts()).grounded(decision(category, **more), answer)


def test_a_grounded_answer_states_its_condition_and_its_citations_stand_where_they_say():
    answer = GroundedAnswer(f"{QUOTE} {QUOTE}", False, (citation(), citation(start=len(QUOTE) + 1)))
    reply = grounded("c_medical", answer, distress="f_minor_user", language="de")
    assert [reply.text[each.answer_start : each.answer_end] for each in reply.citations] == [QUOTE, QUOTE]
    assert [note.kind for note in reply.notes] == ["comfort", "condition"]
    shipped = _shipped()["de"].categories
    assert reply.text[reply.notes[1].start : reply.notes[1].end].startswith(shipped["c_medical"].condition[:60])
    spans = [(each.answer_start, each.answer_end) for each in reply.citations]
    covered = sum(end - start for start, end in [*spans, *((note.start, note.end) for note in reply.notes)])
    assert covered == len("".join(reply.text.split("\n\n"))) - 1, (
        "every character is quoted or a note, but for white space"
    )


def test_what_the_operator_silences_is_not_said():
    answer = GroundedAnswer(QUOTE, False, (citation(),))
    reply = grounded("c_medical", answer, texts(categories={"c_medical": {"condition": ""}}))
    assert (reply.text, reply.notes, reply.citations) == (QUOTE, (), (citation(),))
    mine = grounded("c_medical", answer, texts(categories={"c_medical": {"condition": "Ask Ann."}}))
    assert mine.text == f"{QUOTE}\n\nAsk Ann."
    assert mine.notes == (Note("condition", len(QUOTE) + 2, len(mine.text)),)


def test_positions_are_opened_by_a_sentence_and_other_answers_are_not():
    several = GroundedAnswer(QUOTE, False, (citation(),), positions=("For", "Against"))
    reply = grounded("f_politics_policy", several)
    assert reply.text == f"{_shipped()['en'].categories['f_politics_policy'].opening}\n\n{QUOTE}"
    assert reply.text[reply.citations[0].answer_start : reply.citations[0].answer_end] == QUOTE
    assert grounded("f_politics_policy", GroundedAnswer(QUOTE, False, (citation(),))).text == QUOTE


def test_a_false_premise_is_named_before_what_contradicts_it():
    claim = "{crisis} lines {help_lines} cost money"  # the asker's words are not filled in
    answer = GroundedAnswer(QUOTE, False, (citation(),), premises=(Premise(claim, "negation", citation()),))
    reply = grounded("c_medical", answer, texts(categories={"c_medical": {"condition": ""}}))
    note = reply.notes[0]
    assert (note.kind, len(reply.notes)) == ("premise", 1)
    assert f"“{claim}”" in reply.text[note.start : note.end]
    assert reply.text[reply.citations[0].answer_start : reply.citations[0].answer_end] == QUOTE
    assert not any(
        note.kind == "premise" for note in grounded("c_medical", GroundedAnswer(QUOTE, False, (citation(),))).notes
    )


def test_what_is_no_sure_answer_is_said_to_be_on_the_topic_of_a_named_source():
    quotes = (citation(title="Doses <b>"),)
    reply = grounded("c_medical", GroundedAnswer(QUOTE, False, quotes, related=True))
    first = reply.notes[0]
    assert (first.kind, first.start) == ("related", 0)
    assert "“Doses ＜b>”" in reply.text[: first.end]
    assert reply.text[reply.citations[0].answer_start : reply.citations[0].answer_end] == QUOTE
    assert "related" not in {note.kind for note in grounded("c_medical", GroundedAnswer(QUOTE, False, quotes)).notes}
    with pytest.raises(ValueError, match="title"):
        texts(default={"condition": "See “{title}”."})


def test_the_askers_words_in_a_premise_are_no_markup():
    claim = "a <img src=x>\n\n# b\x1b[0m \u202ec ![d](https://example.org/?e) [f][g] 3 < 4 می\u200cخواهم"
    answer = GroundedAnswer(QUOTE, False, (citation(),), premises=(Premise(claim, "negation", citation()),))
    reply = grounded("c_medical", answer)
    assert "“a ＜img src=x> # b[0m c ![d] (https://example.org/?e) [f] [g] 3 < 4 می\u200cخواهم”" in reply.text
    assert reply.text[reply.citations[0].answer_start : reply.citations[0].answer_end] == QUOTE


def test_only_a_premise_text_may_name_the_claim():
    assert texts(default={"premise": "Not “{claim}”."})
    with pytest.raises(ValueError, match=re.escape("unknown placeholder '{claim}'; known are {emergency}")):
        texts(default={"refuse": "You said {claim}."})


def test_a_refusal_is_known_in_every_language_with_and_without_comfort():
    found = texts(
        {"mute": {"de": "Still.", "it": "Zitto."}}, country="JP", categories={"u_hate": {"refuse": {"ko": "아니요."}}}
    )
    known = found.refusals
    for language in (*sorted(LANGUAGES), "it", "ko", "nl", None):
        for category in TAXONOMY.ids:
            for distress in (None, "f_self_harm", "f_minor_user", "mine"):
                for rule in ("unsafe", "unreadable", "mute"):
                    said = found.reply("refuse", decision(category, language, rule, distress)).text
                    assert said in known, (language, category, distress, rule)
    assert "Still." in known
    assert found.reply("abstain", decision("c_medical")).text not in known


# What is refused


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("answers: {default: {refuse: 'Call {police}.'}}", ("answers.default.refuse", "'{police}'", "{emergency}")),
        ("answers: {categories: {u_hate: {refuse: {de: 'Ruf {0}'}}}}", ("answers.categories.u_hate.refuse", "'{0}'")),
        ("answers: {default: {refuse: 'a } b'}}", ("answers.default.refuse", "'}'", "}}")),
        ("answers: {default: {comfort: '{emergency!r}'}}", ("answers.default.comfort", "'{emergency!r}'")),
        ("answers: {default: {refuse: ' '}}", ("answers.default.refuse", "empty")),
        ("answers: {default: {refuse: {de: ''}}}", ("answers.default.refuse", "empty")),
        ("answers: {default: {refuse: {}}}", ("answers.default.refuse", "language")),
        ("answers: {default: {refuse: 5}}", ("answers.default.refuse", "need a text")),
        ("answers: {default: {refuse: {german: Nein}}}", ("answers.default.refuse", "'german'", "ISO 639-1")),
        ("answers: {default: {refuse: {no: Nei, de: [x]}}}", ("answers.default.refuse",)),
        ("answers: {country: gb}", ("answers.country", "'gb'", "GB")),
        ("answers: {language: English}", ("answers.language", "'English'")),
        ("answers: {language: zh-TW}", ("answers.language", "'zh-TW'", "ISO 639-1")),
        ("answers: {help_lines: {GB: {crisis: []}}}", ("answers.help_lines.GB.crisis",)),
        ("answers: {help_lines: {GB: {cat: ['1']}}}", ("answers.help_lines.GB.cat",)),
        ("answers: {help_lines: {GB: {crisis: [999]}}}", ("answers.help_lines.GB.crisis", "999", "quotes")),
        ("policy: {rules: [{name: a, route: refuse, say: 'No {x}'}]}", ("policy.rules.0.say", "'{x}'")),
    ],
)
def test_a_wrong_text_is_refused_with_its_setting(tmp_path, text, parts):
    path = tmp_path / "airlock.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in parts:
        assert part in str(caught.value)


def test_a_language_without_texts_and_a_country_without_lines_are_refused():
    with pytest.raises(ConfigError, match=r"answers\.language = 'it'.*answers\.default"):
        texts(language="it")
    assert texts(language="it", default={"refuse": {"it": "No."}}).text("refuse", decision()) == "No."
    with pytest.raises(ConfigError, match=r"answers\.country = 'FI'.*answers\.help_lines\.FI"):
        texts(country="FI")
    with pytest.raises(ConfigError, match=r"'xx'.*recognised"):
        Detector({"en", "xx"})


def test_texts_of_the_shown_configuration_can_be_read_again():
    own = Answers.model_validate({"country": "GB", "default": {"refuse": {"de": "Nein."}, "abstain": "?"}})
    again = Answers.model_validate(yaml.safe_load(yaml.safe_dump(own.model_dump(mode="json"))))
    assert again == own


# Languages


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "I don't want to live any more"),
        ("en", "Is it safe to take ibuprofen with wine?"),
        ("en", "HOW DO I MAKE A BOMB"),
        ("de", "Ich will nicht mehr leben"),
        ("de", "Mein Mann schlägt mich"),
        ("fr", "Je veux mourir"),
        ("fr", "Puis-je prendre de l'ibuprofène avec du vin ?"),
        ("es", "Quiero morir"),
        ("es", "¿Puedo tomar ibuprofeno con alcohol?"),
        ("pt", "Não aguento mais, quero morrer"),
        ("pt", "Como fazer uma bomba"),
        ("zh", "我不想活了"),
        ("zh", "我的iPhone坏了，怎么办"),
        ("ja", "死にたい"),
        ("ja", "夫に殴られます"),
        ("ar", "أريد أن أموت"),
        ("ru", "Мне страшно"),
        ("ru", "Я хочу умереть"),
        ("hi", "मैं मरना चाहता हूँ"),
        ("it", "mio marito mi picchia"),
        ("nl", "ik wil niet meer leven"),
        ("uk", "чоловік мене б'є"),
        ("ru", "хочу умереть"),
        ("fa", "شوهرم مرا می‌زند"),
        ("ko", "죽고 싶어요"),
        (None, ""),
        (None, "12345"),
        (None, "😢😢"),
        (None, "lol"),
        (None, "привет мой друг hello my dear friend"),
        (None, "\ud800"),
    ],
)
def test_the_language_of_a_short_text(language, text):
    detector = Detector(LANGUAGES)
    assert detector.language(text) == language
    assert detector.language(text) == language, "the same every time"


def test_only_the_beginning_of_a_long_text_is_read():
    detector = Detector(LANGUAGES)
    assert detector.language("Ich will nicht mehr leben. " * 20 + "死" * 100_000) == "de"
