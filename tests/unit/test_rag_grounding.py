import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rag import Gate, InputError, KnowledgeError, Passage, Status, Support, check_answer
from rag.facts.surroundings import TURNING_HEADING
from rag.segments import segments
from rag.spelling import key, normal
from tests.unit.rag_cases import document

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/grounding_pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
LEAFLET = "Paracetamol eases pain. However, it does not reduce swelling. It is sold without prescription."
LIST = "Never do this:\n\n- Take more than eight tablets.\n- Drink alcohol.\n\nRest is useful."
CAUGHT = {Status.UNSUPPORTED, Status.CONTRADICTED}


class Says:
    """A support model that gives every pair one judgement, and keeps what it was asked."""

    def __init__(self, supported=1.0, contradicted=0.0, rest=None):
        self.judgement = Support(supported, contradicted, 1 - supported - contradicted if rest is None else rest)
        self.asked = []

    def support(self, pairs):
        self.asked += pairs
        return [self.judgement] * len(pairs)


def statuses(answer, *passages, **settings):
    return [checked.status for checked in check_answer(answer, passages, **settings).sentences]


def of_kind(*expected):
    return [pytest.param(pair, id=pair["id"]) for pair in PAIRS if pair["expected"] in expected]


# The authored pairs


@pytest.mark.parametrize("pair", of_kind("supported"))
def test_no_quote_is_lost(pair):
    report = check_answer(pair["claim"], [pair["passage"]])
    assert report.supported
    for checked in report.sentences:
        (place,) = checked.evidence
        quote = pair["passage"][place.start : place.end]
        assert key(normal(quote).text) == key(normal(checked.text).text)
    assert not report.abstained


@pytest.mark.parametrize("pair", of_kind("caught"))
def test_every_edit_is_caught(pair):
    report = check_answer(pair["claim"], [pair["passage"]], support=Says())
    if pair["kind"] == "invented":  # nothing hard is wrong with it
        report = check_answer(pair["claim"], [pair["passage"]])
    assert {checked.status for checked in report.sentences} & CAUGHT, "even if a support model would let it pass"
    assert report.kept == ""


@pytest.mark.parametrize("pair", of_kind("not-supported"))
def test_a_quote_that_is_cut_short_is_none(pair):
    assert Status.SUPPORTED not in statuses(pair["claim"], pair["passage"])


def test_hard_rules_pass_faithful_paraphrases():
    """At least 19 of 20; those that pass are unverifiable, and supported if a model says so."""
    pairs = [pair for pair in PAIRS if pair["expected"] == "unverifiable"]
    passed = [pair for pair in pairs if statuses(pair["claim"], pair["passage"]) == [Status.UNVERIFIABLE]]
    assert len(passed) >= 0.95 * len(pairs)
    for pair in passed:
        assert statuses(pair["claim"], pair["passage"], support=Says()) == [Status.SUPPORTED]


def test_a_support_model_also_judges_what_shares_few_words_with_the_evidence_but_no_other_facts():
    passage = "The library shuts at six. Members may take home twelve books for four weeks. Dogs stay outside."
    claim = "Whoever has joined can borrow twelve volumes from the library, provided they come back within the month."
    report = check_answer(claim, [passage])
    assert [(each.status, each.rule) for each in report.sentences] == [(Status.UNSUPPORTED, "no-evidence")]
    report = check_answer(claim, [passage], support=Says())
    assert [(each.status, each.rule) for each in report.sentences] == [(Status.SUPPORTED, "support-model")]
    report = check_answer(claim.replace("twelve", "15"), [passage], support=Says())
    assert [(each.status, each.rule) for each in report.sentences] == [(Status.UNSUPPORTED, "no-evidence")]


def test_a_sentence_that_is_said_again_is_read_once():
    model = Says()
    claim = "Members may carry twelve books home."
    report = check_answer("\n\n".join([claim] * 50), ["Members may take home twelve books."], support=model)
    assert [each.rule for each in report.sentences] == ["support-model"] * 50
    assert len(model.asked) == 1


def test_there_are_pairs_of_every_kind_and_language():
    kinds = defaultdict(int)
    for pair in PAIRS:
        kinds[pair["kind"]] += 1
        kinds[pair["language"]] += 1
    assert len({pair["id"] + pair["claim"] for pair in PAIRS}) == len(PAIRS) >= 300
    assert min(kinds[kind] for kind in ("quote", "paraphrase", "number", "unit", "date", "name", "negation")) >= 25
    assert min(kinds[language] for language in ("de", "fr", "es", "ja")) >= 15


@pytest.mark.parametrize(
    ("claim", "rule"),
    [
        ("It weighs 650 kg.", "number"),
        ("It was built in 1913.", "date"),
        ("It was built in 1912 by Ada Pell.", "name"),
        ("It was not built in 1912 by Nora Pell.", "negation"),
        ("It may have been built in 1912 by Nora Pell.", "modality"),
    ],
)
def test_the_rule_is_named(claim, rule):
    passage = "The tower was built in 1912 by Nora Pell. It weighs 640 kg."
    (checked,) = check_answer(claim, [passage]).sentences
    assert checked.rule == rule
    assert checked.reason
    (place,) = checked.evidence
    assert passage[place.start : place.end] in ("The tower was built in 1912 by Nora Pell.", "It weighs 640 kg.")


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("Der Kurs dauert nun einundzwanzig Tage.", "Der Kurs dauert zweiundzwanzig Tage und ist frei."),
        ("Le cours dure vingt-et-un jours ici.", "Le cours dure vingt-deux jours et il est libre."),
        ("El curso dura veinticinco días ahora.", "El curso dura veintiséis días y es libre."),
        ("The box holds two dozen eggs now.", "The box holds a dozen eggs."),
        ("The walk takes 180 steps now.", "The walk takes 3 minutes."),
        ("The patient is able to walk now.", "The patient is unable to walk."),
        ("The pump is useful at home now.", "The pump is useless at home."),
        ("Sales doubled in the north now.", "Sales tripled in the north."),
        ("Sales of $5bn were made.", "Sales were $5m."),
        ("Sales of £5k were made.", "Sales were £5m."),
        ("Sales of 5bn were made.", "Sales were 5tn."),
        ("Take 11⁄2 tablets.", "Take 1½ tablets."),
        ("The town bans cars in the centre now.", "The town lifts the ban of cars in the centre."),
        ("A few patients recovered well now.", "Few patients recovered well."),
        ("孕妇可吃山楂。", "孕妇忌吃山楂。"),
        ("The board approved the new plan now.", "The board refused to approve the new plan."),
        ("The new vaccine holds mercury now.", "It is false that the new vaccine holds mercury."),
        ("So aspirin is more effective than ibuprofen.", "Usually ibuprofen is more effective than aspirin."),
    ],
)
def test_the_hard_rules_catch(claim, passage):
    assert set(statuses(claim, passage, support=Says())) <= CAUGHT


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("The dose is 5 now.", "The dose is 5 mg."),
        ("Sales of $5m were made.", "Sales were $5 million."),
        ("Sales of 5 bn dollars were made.", "Sales were $5 billion."),
        ("The dose is now 1/2 tablet.", "The dose is ½ tablet."),
        ("The dose is now 1.5 tablets.", "The dose is 1½ tablets."),
        ("Der Kurs dauert nun 21 Tage.", "Der Kurs dauert einundzwanzig Tage."),
        ("Le cours dure ici 91 jours.", "Le cours dure quatre-vingt-onze jours et il est libre."),
        ("El curso dura 35 días ahora.", "El curso dura treinta y cinco días y es libre."),
        ("The box now holds 6 eggs.", "The box holds half a dozen eggs."),
        ("The box now holds 24 eggs.", "The box holds two dozen eggs."),
        ("Now ibuprofen is more effective than aspirin.", "Ibuprofen is more effective than aspirin."),
        ("Several patients recovered well now.", "A few patients recovered well."),
    ],
)
def test_the_hard_rules_pass(claim, passage):
    assert Status.CONTRADICTED not in statuses(claim, passage)


# Quotes


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("paracetamol eases  pain", "Paracetamol eases\npain."),
        ("“Wait”–he said.", '"Wait"-he said.'),
        ("**Wait** four `hours`.", "Wait four hours."),
        ("Cafe\u0301s open.", "Cafés open."),
        ("Ａ１ is open.", "A1 is open."),
        ("一天最多四次", "一天最多四次。"),
        ("Wait here", "Wait here; ask the guide."),
        ("Adults take 8 tablets.", "Adults take 8 tablets; children take the half."),
        ("Give 5 µg of it.", "Give 5 µg of it; the guide is here."),
        ("成人服用两片。", "成人服用两片；儿童服用一片。"),
        ("Είναι ασφαλές;", "Είναι ασφαλές;"),
        ("Take 4 tablets.", "~~Take 8 tablets.~~ Take 4 tablets."),
        ('"Wait here."', "Wait here."),
        ("Wait here [1].", "Wait here."),
        ("Wait here [1, 3].", "Wait here."),
        ("İzmir waits.", "Izmir waits."),
        ("Wait here.¹", "Wait here."),
        ("Wait here.¹²", "Wait here."),
        ("Wait here.[^1]", "Wait here."),
        ("Wait here【1】.", "Wait here."),
        ("Wait here.【4:0†source】", "Wait here."),
        ("Wait here (1).", "Wait here."),
        ("Wait here.", "Wait here [3]."),
        ("Wait here.", "Wait here. [3]"),
        ("Wait here.", "Wait here.¹"),
        ("Take paracetamol with water.", "Take [paracetamol](https://x.org/p) with water."),
        ("Take paracetamol with water.", 'Take [paracetamol](https://x.org/p_(a) "Pills") with water.'),
        ("Wait here & there.", "Wait&nbsp; here &amp; there."),
        ("Give 5*2 drops.", r"Give 5\*2 drops."),
        ("Take 1/2 tablet.", "Take ½ tablet."),
        ("Take 1 1/2 tablets.", "Take 1½ tablets."),
        ("Ask the guide.", "Ask the guide; the first is free."),
        ("Tyres are sold here.", "The firm previously made shoes; tyres are sold here."),
        ("It is open.", "It is open; the clinic was previously a school."),
        ("Er ist offen.", "Der Verein ist erst zehn Jahre alt; er ist offen."),
        ("Vende pan.", "La empresa antes era un taller; vende pan."),
        ("Il vend du pain.", "Le musée montre l'avant-garde; il vend du pain."),
        ("全年开放。", "该中心研究先进材料；全年开放。"),
        ("多数可以治疗。", "先天性心脏病很常见；多数可以治疗。"),
        ("パンを売っています。", "駅前に店があります；パンを売っています。"),
        ("\u200fالماء مفيد.", "الماء مفيد."),
        ("الماء مفيد.", "\u200fالماء مفيد."),
        ("الماء مفيد.", "\u202bالماء مفيد.\u202c"),
        ("\u2067הקפה חם.\u2069", "הקפה חם."),
        ("הקפה חם.\u200f", "\u200fהקפה חם.\u200f שתו מים."),
        ("\u200eWait here.", "Wait here."),
    ],
)
def test_harmless_differences_do_not_matter(claim, passage):
    assert statuses(claim, passage) == [Status.SUPPORTED]


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("Paracetamol eases pain.", "It is not true that paracetamol eases pain."),
        ("Paracetamol eases pain.", "Paracetamol eases pain unless it is old."),
        ("Paracetamol eases pain.", "Some people claim that paracetamol eases pain."),
        ("Paracetamol eases pain.", "Paracetamol eases pain; but this is a myth."),
        ("Paracetamol eases pain.", "It is a myth: paracetamol eases pain."),
        ("Paracetamol eases pain.", "Paracetamol eases pain?"),
        ("Paracetamol eases pain.", '"Paracetamol eases pain."'),
        ("The area is 102 m.", "The area is 10² m."),
        ("Give 53 drops.", "Give 5*3 drops."),
        ("Give 5 3 drops.", "Give 5 * 3 drops."),
        ("5 drops are too many.", "> 5 drops are too many."),
        ("5 degrees at night.", "Lows reach\n- 5 degrees at night."),
        ("Januar 2020 gilt es überall.", "1. Januar 2020 gilt es überall.\n2. Januar 2021 gilt es hier."),
        ("Take 8 tablets.", "> You should never\n> take 8 tablets."),
        ("Take 8 tablets.", "Rest. ~~It works. Take 8 tablets. Yes.~~ Wait."),
        ("Take 8 tablets.", "Rest. <del>It works. Take 8 tablets. Yes.</del> Wait."),
        ("Take 8 tablets.", "<s>\n\nTake 8 tablets.\n\n</s>"),
        ("Wait here.", "Rest. <s>Never</s> wait here."),
        ("Wait here.", "Wait here\u037e"),
        ("Take \u202e12\u202c tablets a day.", "Take 12 tablets a day."),
        ("Take 1\u200f-\u200f2 tablets a day.", "Take 1-2 tablets a day."),
        ("Take 1&#8238;2 tablets a day.", "Take 12 tablets a day."),
        ("8 tablets a day.", "Take no more than approx. 8 tablets a day."),
        ("8 tablets a day.", "Not more than max. 8 tablets a day."),
        ("8 tablets a day.", "Not incl. 8 tablets a day."),
        ("Salt a day.", "No sugar, esp. Salt a day."),
        ("Wasser ist gut.", "Kein Tee usw. Wasser ist gut."),
        ("8 tabletas al día.", "No más, p. ej. 8 tabletas al día."),
        ("8 таблеток в день.", "Не более прим. 8 таблеток в день."),
        ("The area is 10 m.", "The area is 10 m²."),
        ("The area is 10 m².", "The area is 10 m."),
        ("See part.", "See part (3)."),
        ("Take up to (8).", "Take up to."),
        ("Use a.", "Use a[3]."),
        ("Take [paracetamol](https://y.org) with water.", "Take paracetamol with water."),
        ("Take 11⁄2 tablets.", "Take 1½ tablets."),
        ("Take 11/2 tablets.", "Take 1\u200b½ tablets."),
        ("Take 1/25 tablets.", "Take ½**5** tablets."),
        ("Vaccines cause autism.", "## Vaccines cause autism\n\nThis is a myth: no study found a link."),
        ("Vaccines cause autism.", "## Vaccines cause autism\n\nFalse."),
        ("疫苗含有芯片。", "# 疫苗含有芯片\n\n这是谣言。"),
        ("Cigarettes soothe the throat.", "Doctors once thought smoking harmless; cigarettes soothe the throat."),
        ("The earth is flat.", "Flat-earthers think so; the earth is flat."),
        ("Take 8 tablets.", "Until 1990 this was the rule; take 8 tablets."),
        ("The earth is flat.", "An old opinion; the earth is flat."),
        ("The earth is flat.", "Long since debunked; the earth is flat."),
        ("Smoking is safe.", "These views are outdated; smoking is safe."),
        ("Smoking is safe.", "Critics reject this; smoking is safe."),
        ("儿童不得服用本药。", "儿童不得服用本药，除非医生同意。"),
        ("疫苗含有活病毒。", "有人声称；疫苗含有活病毒。"),
        ("Take 8 tablets.", "Take 8 tablets; for adults over 60 kg."),
        ("Take 8 tablets.", "In the first week; take 8 tablets."),
        ("Take 8 tablets.", "Take 8 tablets; less is enough for you."),
        ("Take 8 tablets.", "Take 8 tablets; pregnant women take the half."),
        ("服用两片。", "服用两片；儿童服用一片。"),
        ("Принимайте 8 таблеток.", "Принимайте 8 таблеток; никогда при беременности."),
        ("Prendere 8 compresse.", "Prendere 8 compresse; mai in gravidanza."),
        ("La dose è di 8 compresse.", "La dose è di 8 compresse; mai con la birra o una tisana."),
        ("Neem 8 tabletten.", "Neem 8 tabletten; niet bij zwangerschap."),
        ("Tome 8 comprimidos.", "Tome 8 comprimidos com a água da fonte; não se está grávida."),
        ("Είναι ασφαλές.", "Είναι ασφαλές; Όχι."),
        ("Είναι ασφαλές.", "Είναι ασφαλές;\n\nΌχι."),
        ("Take 8 of the tablets.", "Take 8 of the tablets; contact a doctor first."),
        ("Take 8 of the tablets.", "Take 8 of the tablets; ask your doctor beforehand."),
        ("Take 8 of the tablets.", "First ask the doctor; take 8 of the tablets."),
        ("Nehmen Sie 8 Tabletten.", "Nehmen Sie 8 Tabletten; fragen Sie vorher einen Arzt."),
        ("Prenez 8 comprimés.", "Prenez 8 comprimés; consultez d'abord un médecin."),
        ("Tome 8 comprimidos.", "Tome 8 comprimidos; consulte primero a su médico."),
        ("Take 8 of the tablets.", "Take 8 of the tablets; see a doctor previously."),
        ("Nehmen Sie 8 Tabletten.", "Nehmen Sie 8 Tabletten; fragen Sie erst einen Arzt."),
        ("Tome 8 comprimidos.", "Tome 8 comprimidos; consulte a su médico antes."),
        ("服用8片。", "服用8片；先吃饭再服用。"),
        ("服用8片。", "服用8片；先咨询医生。"),
        ("8錠飲んでください。", "8錠飲んでください；先に医師に相談してください。"),
        ("Take 8.", "You must not\n<!-- vale off -->\nTake 8."),
        ("Take 8.", "You must not <!-- a\r\n\r\nb --> Take 8."),
        ("Take 8.", "You must not\r\n  <!-- vale off -->\r\nTake 8."),
        ("<!-- Take 8. -->", "- Rest. <!-- Take 8. -->\n- Wait."),
        ("<!-- Take 8. --> Wait.", "Rest. <!-- Take 8. --> Wait."),
        ("\u202eالماء مفيد.", "الماء مفيد."),
        ("\u200f8 tablets a day.", "8 tablets a day."),
        ("\u202bWait here.", "Wait here."),
        ("الماء \u202eمفيد.", "الماء مفيد."),
        ("الماء \u202e12.", "الماء \u202e12.\u202c"),
    ],
)
def test_what_is_cut_or_bent_is_no_quote(claim, passage):
    assert Status.SUPPORTED not in statuses(claim, passage)


def test_a_sentence_keeps_the_citation_mark_behind_its_stop():
    answer = "Wait here.¹ Tea is hot.[^2] Rest.【3】"
    report = check_answer(answer, ["Wait here. Tea is hot. Rest."])
    assert report.kept == answer
    assert [checked.text for checked in report.sentences] == ["Wait here.¹", "Tea is hot.[^2]", "Rest.【3】"]


@pytest.mark.parametrize("more", ["🅞🅡 🅣🅐🅚🅔 🅐🅛🅛", "🇳🇴", "ⓐⓛⓛ", "⠞⠁⠅⠑"])
def test_signs_that_are_read_as_letters_are_judged(more):
    for gap in ("\n\n", "\n", " "):
        report = check_answer(f"Take 8 tablets.{gap}{more}", ["Take 8 tablets."])
        assert not report.supported
        assert more not in report.kept


@pytest.mark.parametrize("more", ["❌🚫", "────", "👍🏽", "→"])
def test_decoration_is_no_sentence(more):
    assert statuses(f"Take 8 tablets.\n\n{more}", "Take 8 tablets.") == [Status.SUPPORTED]


def test_beside_a_comment_is_a_quote():
    assert statuses("Rest. Wait.", "Rest.<!-- Take 8. Or 9. --> Wait. <!-- vale off -->") == [Status.SUPPORTED] * 2


def test_a_heading_that_is_not_called_false_is_a_quote():
    assert statuses("Take two tablets", "## Take two tablets\n\nRest is good.") == [Status.SUPPORTED]
    assert statuses("## Is tea safe?", "## Is tea safe?\n\nNot true of all.") == [Status.SUPPORTED]


def test_a_paragraph_is_a_quote_of_several_sentences():
    report = check_answer("- " + LEAFLET, [LIST, "Tea is hot. " + LEAFLET])
    assert report.supported
    assert [LEAFLET[s.start - 2 : s.end - 2] for s in report.sentences] == [s.text for s in report.sentences]
    assert report.kept == "- " + LEAFLET


# What leans on what


@pytest.mark.parametrize(
    ("answer", "passages", "kept"),
    [
        ("Paracetamol eases pain. However, it does not reduce swelling.", [LEAFLET], None),
        ("Paracetamol eases pain. It is sold without prescription.", [LEAFLET], None),
        ("Paracetamol cures colds. However, it does not reduce swelling.", [LEAFLET], ""),
        ("Paracetamol eases pain. It is safe.", [LEAFLET, "Aspirin thins. It is safe."], "Paracetamol eases pain."),
        ("Tea is hot. So wait. Rest is good.", ["Tea is hot. Rest is good. So wait."], "Tea is hot. Rest is good."),
        ("他今年八岁。他会游泳。", ["他会游泳。"], ""),
        ("- Take more than eight tablets.\n- Drink alcohol.", [LIST], ""),
        ("Never do this:\n- Take more than eight tablets.\n- Drink alcohol.", [LIST], None),
        ("Never do this:\n- Rest is useful.", [LIST], "Never do this:"),
        ("Rest is useful.", [LIST], None),
    ],
)  # fmt: skip
def test_sentences_that_lean_on_another_go_with_it(answer, passages, kept):
    report = check_answer(answer, passages, gate=Gate(kept=0.2))
    assert report.kept == (answer if kept is None else kept)


AGES = "## Adults\n\nTake two tablets.\n\n## Children\n\nTake one tablet.\n\n## Infants"
DOSES = "## Adults\n\nDose:\n- Take two.\n\n## Children\n\nDose:\n- Take one."
TABLES = "| Age | Dose |\n|---|---|\n| Adult | two |\n\n| Weight | Dose |\n|---|---|\n| 9 kg | one |"
BOLD = "**Tea**\n\nHot.\n\n**Milk**\n\nGood."
STEPS = "1. Alice came.\n2. Bob came."


@pytest.mark.parametrize(
    ("answer", "passage", "last"),
    [
        ("## Children\n\nTake one tablet.", AGES, True),
        ("## Children\n\nTake two tablets.", AGES, False),
        ("## Infants\n\nTake two tablets.", AGES, False),
        ("Children:\n- Take two tablets.", AGES, False),
        ("## Summary\n\nTake two tablets.", AGES, True),
        ("## Children\n\nDose:\n- Take one.", DOSES, True),
        ("## Children\n\nDose:\n- Take two.", DOSES, False),
        ("## Take one tablet.\n\nTake two tablets.", AGES, True),
        ("## Children\n\nTake two tablets.", AGES.replace("one tablet", "two tablets"), True),
        ("| Weight | Dose |\n|---|---|\n| 9 kg | one |", TABLES, True),
        ("| Age | Dose |\n|---|---|\n| 9 kg | one |", TABLES, False),
        ("Adults\n------\n\nTake two tablets.", AGES, True),
        ("Children\n========\n\nTake two tablets.", AGES, False),
        ("**Children**\n\nTake two tablets.", AGES, False),
        ("**Tea**\n\nGood.", BOLD, False),
        ("**Milk**\n\nGood.", BOLD, True),
        ("**Tea**\n\nHot.\n\n**Milk**\n\nGood.", BOLD, True),
        ("Adults\n------\n\nTake two tablets.", AGES.replace("## Adults", "## Adults ##"), True),
        ("## 2023\n\nIt fell.", "## 2023\n\nIt rose.\n\n## 2024\n\nIt fell.", False),
    ],
)
def test_a_quote_stands_below_the_heading_of_its_place(answer, passage, last):
    assert (statuses(answer, passage)[-1] is Status.SUPPORTED) == last


DRINKS = "What should infants drink?\n\nWater.\n\nTea.\n\nWhat must infants avoid?\n\n- Honey.\n- Salt."


@pytest.mark.parametrize(
    ("answer", "passage", "last"),
    [
        ("What must infants avoid?\n\nHoney.", DRINKS, True),
        ("What must infants avoid?\n\n- Salt.", DRINKS, True),
        ("What should infants drink?\n\nTea.", DRINKS, True),
        ("What should infants drink?\n\nHoney.", DRINKS, False),
        ("What should infants drink? Honey.", DRINKS, False),
        ("What should infants drink?\n\n- Water.\n- Salt.", DRINKS, False),
        ("**What should infants drink?**\n\nHoney.", DRINKS.replace("W", "**W", 1).replace("?", "?**", 1), False),
        ("Honey.", DRINKS, True),
        ("What is tea? Honey.", "What is tea? Hot. What is sweet? Honey.", False),
        ("What is sweet? Honey.", "What is tea? Hot. What is sweet? Honey.", True),
        ("Q: What is tea?\nA: Honey.", "Q: What is tea?\nA: Hot.\n\nQ: What is sweet?\nA: Honey.", False),
        ("What is tea? Hot.\n\nRest.", "What is tea? Hot.\n\nWhat is best?\n\nRest.", True),
        ('Ask, "Is it hot?"\n\nRest.', 'Ask, "Is it hot?"\n\nWhat is best?\n\nRest.', True),
        ("What is tea?\n\nHoney.", "What is tea?\n\nHoney.\n\nWhat is sweet?\n\nHoney.", True),
    ],
)
def test_an_answer_stands_below_the_question_of_its_place(answer, passage, last):
    assert (statuses(answer, passage)[-1] is Status.SUPPORTED) == last


def test_numbers_of_items_must_be_equal_where_both_have_one():
    assert statuses(STEPS, STEPS) == [Status.SUPPORTED] * 2
    assert statuses("1. Bob came.\n2. Alice came.", STEPS) == [Status.UNVERIFIABLE] * 2
    assert statuses("- Bob came.\n- Alice came.", STEPS) == [Status.SUPPORTED] * 2


@pytest.mark.parametrize(
    ("answer", "passage", "supported"),
    [
        ("Take eight tablets.", "Never:\n\nTake eight tablets.\n\nRest is good.", False),
        ("Rest is good.", "Never:\n\nTake eight tablets.\n\nRest is good.", True),
        ("Take eight tablets.", "Never:\n1. Take eight tablets.", False),
        ("Take eight tablets.", "Never:\n- At night:\n- Take eight tablets.", False),
        ("At night:", "Never:\n- At night:\n- Take eight tablets.", False),
        ("Take eight tablets.", "## What not to do\n\nTake eight tablets.\n\n## Uses\n\nPain.", False),
        ("Pain.", "## What not to do\n\nTake eight tablets.\n\n## Uses\n\nPain.", True),
        ("Vaccines hold chips.", "# Myths\n\n- Vaccines hold chips.", False),
        ("疫苗含有芯片。", "# 常见误区\n\n疫苗含有芯片。", False),
        ("Wait four hours.", "## What may I not do?\n\nWait four hours.", True),
        ("Call 112.", "**Do not panic.**\n\nCall 112.", True),
        ("Take eight tablets.", "People should never\n-----\ntake eight tablets.", False),
    ],
)
def test_a_line_turns_what_stands_below(answer, passage, supported):
    assert (statuses(answer, passage) == [Status.SUPPORTED]) == supported
    assert statuses(passage, passage)[-1] is Status.SUPPORTED


@pytest.mark.parametrize(
    "heading",
    [
        "Myths\n=====",
        "What not to do\n--------------",
        "## Myths ##",
        "## Myths:",
        "## Häufige Irrtümer:",
        "## 常见误区：",
        "## Myths {#myths}",
        "## [What not to do](#x)",
        "## “Myths”",
        "## ❌ What not to do",
        "## Myths¶",
        "## 1.2 Myths",
        "<h2>Myths</h2>",
        '## <a id="m"></a>Myths',
        "**Myths**",
        "# Vaccine myths",
        "# Common misconceptions about vaccines",
        "# 5 myths about vaccines",
        "# COVID-19 vaccines: myths and facts",
        "# Common mistakes when treating burns",
        "# Impfmythen",
        "# Häufige Irrtümer über Impfungen",
        "# Idées reçues sur les vaccins",
        "# Mitos sobre las vacunas",
        "# Errores comunes al tratar quemaduras",
        "# 关于疫苗的误区",
        "# ワクチンに関する誤解",
        "# خرافات شائعة",
        "# مفاهيم خاطئة عن اللقاحات",
        "# आम मिथक",
        "# Superseded guidance (until 2020)",
        "# Repealed",
        "# Outdated advice",
        "# Veraltete Empfehlungen",
        "# Debunked",
        "# Bad examples",
    ],
)
def test_a_heading_turns_however_it_is_written(heading):
    passage = f"{heading}\n\nVaccines hold chips. Rest is bad."
    assert Status.SUPPORTED not in statuses("Vaccines hold chips. Rest is bad.", passage)
    report = check_answer(passage, [passage])
    assert report.supported
    assert check_answer(report.kept, [passage]).supported


@pytest.mark.parametrize(
    "heading",
    [
        "The Columbus myth",
        "Outdated browsers",
        "Is it debunked?",
        "Veraltete Browser",
        "خرافات اليونان",
        "هل هناك مفاهيم خاطئة عن اللقاحات؟",
        "Error messages",
        "Are there vaccine myths?",
        "The truth about vaccine myths",
        "Fehlersuche",
        "Greek myths",
        "Norse Myths",
        "Myths and legends of Greece",
        "The origin of myths",
        "Myth and religion",
        "Facts instead of myths",
        "Germanische Mythen",
        "Les mythes grecs",
        "Mitos y leyendas",
        "Common errors and how to fix them",
        "Typical errors of measurement",
        "Frequent errors in the log",
        "Häufige Fehler und ihre Behebung",
        "Erreurs courantes et solutions",
        "Errores frecuentes y soluciones",
        "Lieux à éviter",
        "谣言心理学",
        "防止谣言传播",
        "迷信の歴史",
    ],
)
def test_a_heading_that_only_has_such_a_word_does_not_turn(heading):
    assert statuses("Vaccines hold chips.", f"# {heading}\n\nVaccines hold chips.") == [Status.SUPPORTED]


@pytest.mark.parametrize(
    "heading", ["foods to avoid ", "myths about ", "common ", "误区与", "à éviter ", "مفاهيم خاطئة "]
)
@pytest.mark.parametrize("end", ["?", "x"])
def test_a_long_heading_is_read_fast(heading, end):
    start = time.perf_counter()
    TURNING_HEADING.fullmatch(heading * 20_000 + end)
    assert time.perf_counter() - start < 1


def test_what_stands_between_sentences_is_kept_as_a_space():
    answer = "הקפה חם.\u200f שתו מים."
    assert check_answer(answer, ["הקפה חם. שתו מים."]).kept == "הקפה חם. שתו מים."


def test_a_line_of_the_document_above_a_passage_turns_it():
    text = "Never do this:\n- Drink alcohol.\n"
    source = document("a", text)
    passage = Passage("a#0", "a", source.version, 17, 31, text[17:31])
    assert check_answer("Drink alcohol.", [passage]).supported
    assert not check_answer("Drink alcohol.", [passage], documents={"a": source}).supported


def test_what_leans_on_a_paraphrase_must_follow_it():
    model = Says()
    assert (
        statuses("Pain is eased by paracetamol. However, it does not reduce swelling.", LEAFLET, support=model)
        == [Status.SUPPORTED] * 2
    )
    answer = "Without prescription it is sold. However, it does not reduce swelling."
    assert statuses(answer, LEAFLET, support=model) == [Status.SUPPORTED, Status.UNVERIFIABLE]


@pytest.mark.parametrize("answer", ["Wait here. Yes.", "Wait here. Never.", "在这里等。是的。"])
def test_a_word_that_answers_leans_on_the_sentence_before(answer):
    assert (
        statuses(answer, "Wait here. 在这里等。", "Rest. Yes.", "Rest. Never.", "休息。是的。")[-1]
        is Status.UNVERIFIABLE
    )


def test_what_remains_must_still_answer():
    answer = "Rest is useful. Tea cures every cold that anybody ever had."
    assert check_answer(answer, [LIST]).abstained
    loose = check_answer(answer, [LIST], gate=Gate(kept=0.2))
    assert (loose.abstained, loose.kept) == (False, "Rest is useful.")


@pytest.mark.parametrize(
    ("gap", "kept"),
    [
        ("\r\n\r\n", "\n\n"),
        ("\n \t\n", "\n\n"),
        ("\n\u3000\n", "\n\n"),
        ("\n\xa0\n", "\n\n"),
        ("\r\n- ", "\n- "),
        ("\n- No.\n- ", "\n- "),
    ],
)
def test_paragraphs_stay_apart_whatever_ends_their_lines(gap, kept):
    report = check_answer(f"Tea is hot.{gap}Rest is useful.", ["Rest is useful. Tea is hot."], gate=Gate(kept=0))
    assert report.kept == f"Tea is hot.{kept}Rest is useful."


def test_markers_stay_with_what_is_kept():
    answer = "## Rest is useful.\n\n1. Drink alcohol slowly.\n2. Rest is useful.\n\nTea is hot."
    report = check_answer(answer, ["Rest is useful. Tea is hot."], gate=Gate(kept=0))
    assert report.kept == "## Rest is useful.\n\n2. Rest is useful.\n\nTea is hot."


def test_a_lone_number_before_a_line_is_a_fact():
    assert statuses("1. Mai ist ein Feiertag.", "Der 2. Mai ist ein Feiertag.") == [Status.CONTRADICTED]


# The support model


def test_a_support_model_decides_what_the_rules_leave():
    claim = "Pain is eased by paracetamol."
    assert statuses(claim, LEAFLET) == [Status.UNVERIFIABLE]
    model = Says(0.9)
    report = check_answer(claim, [LEAFLET], support=model)
    assert report.kept == claim
    assert report.sentences[0].score == pytest.approx(0.9)
    assert model.asked == [(LEAFLET, claim)]
    assert statuses(claim, LEAFLET, support=Says(0.7)) == [Status.UNSUPPORTED]
    assert statuses(claim, LEAFLET, support=Says(0.7), gate=Gate(supported=0.6)) == [Status.SUPPORTED]
    assert statuses(claim, LEAFLET, support=Says(0.2, 0.6)) == [Status.CONTRADICTED]


def test_a_support_model_reads_what_is_around_the_sentence_itself():
    model = Says()
    passage = "Anna rests in a warm bed. " + "Tea is hot. " * 400 + "Anna rests"
    check_answer("Now Anna rests.", [passage], support=model)
    assert any(read.endswith("Anna rests") for read, _ in model.asked)


def test_when_every_word_is_common_all_weigh_the_same():
    assert statuses("Tea is hot, tea.", "Tea is hot. " * 1100) == [Status.UNVERIFIABLE]


def test_days_written_in_han_are_read():
    assert statuses("他三月三十一日到。", "他在三月三十一日到。") != [Status.CONTRADICTED]
    assert statuses("他二〇二四年一一月到。", "他二〇二四年一二月到。") == [Status.CONTRADICTED]


def test_a_support_model_is_not_asked_about_quotes_and_faults():
    model = Says()
    check_answer("Paracetamol eases pain. Paracetamol eases no pain.", [LEAFLET], support=model)
    assert model.asked == []


@pytest.mark.parametrize("model", [Says(0.5, 0.5, 0.5), Says(float("nan")), Says(1.5, -0.5)])
def test_rubbish_of_a_support_model_is_an_error(model):
    with pytest.raises(KnowledgeError, match="support model"):
        check_answer("Pain is eased by paracetamol.", [LEAFLET], support=model)


def test_a_support_model_is_not_asked_about_evidence_that_shares_no_word():
    model = Says()
    assert statuses("Naps help.", "Tea is hot.", support=model) == [Status.UNSUPPORTED]
    assert model.asked == []


# Input


@pytest.mark.parametrize(
    ("answer", "passages", "param"),
    [
        ("", ["x"], "answer"),
        (" \n", ["x"], "answer"),
        ("a" * 1_000_000, ["x"], "answer"),
        ("a", ["b" * 1_000_001], "passages"),
        ("a\ud800", ["x"], "answer"),
        ("a", ["x", "\udfff"], "passages"),
        ("a", ["Big tea. " * 20_001], "passages"),
    ],
)
def test_input_beyond_the_limits_is_refused_by_name(answer, passages, param):
    with pytest.raises(InputError, match=f"^{param}: ") as caught:
        check_answer(answer, passages)
    assert caught.value.param == param


@pytest.mark.parametrize("setting", [{"kept": 1.5}, {"supported": -1}, {"overlap": float("nan")}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(KnowledgeError, match=next(iter(setting))):
        Gate(**setting)


def test_without_evidence_nothing_is_supported():
    report = check_answer("Rest is useful.", [])
    assert ([s.status for s in report.sentences], report.kept, report.abstained) == ([Status.UNSUPPORTED], "", True)
    assert not check_answer("?!", ["?!"]).supported


def test_the_report_can_be_written_as_json():
    passage = Passage("p", "doc", "v", 10, 25, "Rest is useful.")
    data = json.loads(json.dumps(check_answer("Rest is useful. Tea is hot.", [passage]).as_dict()))
    assert data["sentences"][0]["evidence"] == [{"passage": 0, "start": 0, "end": 15}]
    assert [s["status"] for s in data["sentences"]] == ["supported", "unsupported"]
    assert data["passages"] == [{"id": "p", "document": "doc", "version": "v", "start": 10, "end": 25}]
    assert not data["supported"]


HOSTILE = (
    "a",
    "1",
    "1,",
    "不",
    "*",
    "(",
    "n't ",
    "a.b@",
    "half ",
    "第一",
    "one ",
    "1 ",
    "\u0301",
    "- ",
    "\n",
    ";",
    "百分之",
    "A-1",
    "~~a ",
    "<s>a ",
    "> 5\n",
    "a\n- 5\n",
    "1. Mai\n",
    "a\n--\n",
    "# !",
    "**a**\n\n",
    "a? ",
    "[a",
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_input_is_read_in_time(unit):
    """Seconds of this process, about ten times what is needed."""
    started = time.process_time()
    long = unit * (1_000_000 // len(unit))
    try:
        if unit in ("a", "1,", "不"):
            check_answer("Rest is useful.", [long])
        check_answer("a 1 " + unit * 400, [long[:100_000]])
        check_answer(long[:20_000], ["Rest is useful. " + long[:20_000] + "x"])
    except InputError as exc:
        assert exc.param in ("passages", "answer")  # noqa: PT017 - too many sentences, or no word at all
    assert time.process_time() - started < 10


# Properties

TEXT = st.text(
    st.characters(codec="utf-8") | st.sampled_from(" .!?;,\n-*#|1234567890abcABC不一二。，；：\"'"), max_size=300
)
WORDS = st.lists(
    st.sampled_from("Rest tea 5 mg 2024 Dr. e.g. not 不得 克 hot - * It (b) 1. “so” ; : , 。 . ! \n \n\n".split(" ")),
    max_size=60,
).map(" ".join)  # fmt: skip


@settings(max_examples=60)
@given(WORDS | TEXT, st.data())
def test_any_sentence_of_a_passage_is_a_quote_at_its_place(passage, data):
    found = segments(passage)
    assume(found)
    sentence = data.draw(st.sampled_from(found))
    text = passage[sentence.start : sentence.end]
    report = check_answer(text, ["Other words.", passage])
    for checked in report.sentences:
        if checked.rule == "reference":
            continue
        assert checked.status is Status.SUPPORTED, checked
        (place,) = checked.evidence
        quote = (["Other words.", passage][place.passage])[place.start : place.end]
        assert key(normal(quote).text) == key(normal(text).text)


@settings(max_examples=60)
@given(TEXT | WORDS, st.lists(TEXT | WORDS, max_size=3))
def test_offsets_slice_and_nothing_raises(answer, passages):
    assume(answer.strip())
    report = check_answer(answer, passages, support=Says())
    position = 0
    for checked in report.sentences:
        assert position <= checked.start < checked.end
        assert answer[checked.start : checked.end] == checked.text
        position = checked.end
        assert 0 <= checked.score <= 1
        for place in checked.evidence:
            assert 0 <= place.start < place.end <= len(passages[place.passage])
    said = {c for c in answer if c.isalnum()}
    covered = {c for checked in report.sentences for c in checked.text}
    assert said - set("0123456789") <= covered


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.text(st.characters(codec="utf-8"), max_size=60))
def test_junk_never_raises(answer, passage):
    assume(answer.strip())
    check_answer(answer, [passage, passage + answer])


@given(TEXT)
def test_normalised_offsets_lead_back(text):
    found = normal(text)
    assert len(found.text) == len(found.starts) == len(found.ends)
    assert all(0 <= start < end <= len(text) for start, end in zip(found.starts, found.ends, strict=True))
    assert list(found.starts) == sorted(found.starts)
