"""Hard facts of a claim held against a sentence of the evidence: what must be stopped, and as much that must not."""

import pytest

from rag.facts import numbers
from rag.facts.comparison import compare, facts
from rag.facts.types import Number
from rag.spelling import normal


def fault(claim, evidence, language):
    return compare(*(facts(normal(text).text, language) for text in (claim, evidence)))


STOPPED = [
    ("en", "Fares are 30 euros by night.", "Fares are at least 4 euros by day or at least 30 euros by night."),
    ("en", "Test results arrive in two days.", "Test results should arrive in two days."),
    ("en", "Store managers must check bags.", "Store managers check bags."),
    ("en", "Report it daily.", "Report it within 24 hours."),
    ("en", "Take twice a day one tablet.", "Take twice a day two tablets."),
    ("en", "One of the guest rooms is closed.", "Two of the guest rooms are closed."),
    ("en", "One of the largest ships sank.", "Two of the largest ships sank."),
    ("en", "Patients recover.", "Patients recover for the most part."),
    ("zh", "孕妇能服用，3岁以下儿童不能服用。", "孕妇不能服用，3岁以下儿童不能服用。"),
    ("en", "It may cost more than 100 and at least 30,000 euros.", "It may cost more than 100 and up to 30,000 euros."),
    ("en", "Members can borrow 12 books for four weeks.", "Members can borrow up to twelve books for four weeks."),
    ("en", "Every patient recovers in a week.", "Most patients recover in a week."),
    ("en", "Some patients got better.", "Most patients got better."),
    ("en", "Two of the patients died.", "One of the patients died."),
    ("en", "Take it, if you feel well.", "Take it, even if you feel well."),
    ("en", "You may wait at the door.", "You must wait at the door."),
    ("en", "You may wait at the door.", "You should wait at the door."),
    ("en", "You must take aspirin.", "Never take aspirin."),
    ("en", "Call centres must be open.", "Call centres are open."),
    ("en", "There are four hours or less between doses.", "There are at least four hours between doses."),
    ("en", "Take it four times in 24 hours.", "Take it four times a week."),
    ("en", "Wait one hour.", "Wait half an hour."),
    ("en", "Wait an hour.", "Wait half an hour."),
    ("en", "Interest is one percent.", "Interest is half a percent."),
    ("en", "Take a tablet at night.", "Take two tablets at night."),
    ("en", "The temperature is five degrees.", "The temperature is minus five degrees."),
    ("en", "Net growth was 3 percent.", "Net growth was negative 3 percent."),
    ("de", "Die Temperatur beträgt 5 Grad.", "Die Temperatur beträgt minus 5 Grad."),
    ("zh", "温度为5度。", "温度为零下5度。"),
    ("zh", "温度为5度。", "温度为-5度。"),
    ("zh", "利润为5%。", "利润为负5%。"),
    ("de", "Es kamen dreihundert Leute.", "Es kamen zweihundert Leute."),
    ("de", "Es kostet dreieinhalb Euro.", "Es kostet zweieinhalb Euro."),
    ("de", "Das Mittel zweimal am Tag nehmen.", "Das Mittel dreimal am Tag nehmen."),
    ("de", "Nehmen Sie eine Tablette.", "Nehmen Sie zwei Tabletten."),
    ("de", "Das zweite Kapitel gilt.", "Das erste Kapitel gilt."),
    ("de", "Die Frist läuft am sechsten Mai ab.", "Die Frist läuft am fünften Mai ab."),
    ("en", "The thirteenth amendment passed.", "The seventeenth amendment passed."),
    ("zh", "价格上涨了两成。", "价格上涨了一成。"),
    ("en", "Keep it at 8 °C.", "Keep it at 2-8 °C."),
    ("en", "The dose is 10 mg.", "The dose is between 5 and 10 mg."),
    ("en", "Take two tablets.", "Take one or two tablets."),
    ("en", "Give 5 mg/kg/hour.", "Give 5 mg/kg/day."),
    ("en", "The area is 5 m in all.", "The area is 5 m² in all."),
    ("en", "The volume is 5 square metres.", "The volume is 5 cubic metres."),
    ("en", "The farm has 5 acres of land.", "The farm has 5 hectares of land."),
    ("en", "The limit is 5 sievert a year.", "The limit is 5 millisievert a year."),
    ("en", "Use 5 psi of pressure.", "Use 5 bar of pressure."),
    ("en", "Take 5 spoons.", "Take 5 drops."),
    ("en", "It was passed on 05/03/2019.", "It was passed on 03/05/2019."),
    ("zh", "九点三刻开门。", "九点一刻开门。"),
    ("en", "Pay at a quarter to five.", "Pay at a quarter past five."),
    ("de", "Das Bad öffnet um acht.", "Das Bad öffnet um halb acht."),
    ("zh", "每天服用。", "每隔一天服用。"),
    ("zh", "每日服用一次。", "隔日服用一次。"),
    ("en", "Open on weekends.", "Open on weekdays."),
    ("en", "Renew it biannually.", "Renew it annually."),
    ("en", "It happened next year.", "It happened last year."),
    ("en", "Sugar affects behaviour.", "Sugar barely affects behaviour."),
    ("en", "You need a visa.", "You dont need a visa."),
    ("en", "It is safe.", "It is anything but safe."),
    ("en", "Tenants pay the fee.", "Tenants are exempt from the fee."),
    ("en", "The drug has side effects.", "The drug is free of side effects."),
    ("en", "Access is granted to guests.", "Access is denied to guests."),
    ("en", "The contract is binding.", "The contract is void."),
    ("en", "The test is reliable.", "The test is unreliable."),
    ("en", "The plant is toxic to dogs.", "The plant is non-toxic to dogs."),
    ("en", "Take it every other day.", "Take it every day."),
    ("en", "The drug is indicated in pregnancy.", "The drug is contraindicated in pregnancy."),
    ("de", "Das Mittel ist giftig.", "Das Mittel ist ungiftig."),
    ("de", "Das Mittel hilft.", "Das Mittel hilft kaum."),
    ("zh", "孕妇可用该药。", "孕妇禁用该药。"),
    ("zh", "孕妇可服。", "孕妇忌服。"),
    ("en", "Caesar died in 44.", "Caesar died in 44 BC."),
    ("en", "Caesar died in AD 44.", "Caesar died in 44 BC."),
    ("en", "Caesar died in 44 BC.", "Caesar died in AD 44."),
    ("en", "Caesar died on 15 March 44.", "Caesar died on 15 March 44 BC."),
    ("en", "The temple was built in 1550.", "The temple was built in 1550 BCE."),
    ("en", "The war lasted from 431 to 404.", "The war lasted from 431 to 404 BC."),
    ("en", "He reigned from 27 to AD 14.", "He reigned from 27 BC to AD 14."),
    ("en", "It was in the fifth century.", "It was in the 5th century BC."),
    ("de", "Caesar starb im Jahr 44 n. Chr.", "Caesar starb im Jahr 44 v. Chr."),
    ("fr", "César est mort en 44.", "César est mort en 44 av. J.-C."),
    ("es", "César murió en el 44.", "César murió en el 44 a. C."),
    ("zh", "凯撒死于公元44年。", "凯撒死于公元前44年。"),
    ("zh", "战争从431年至404年。", "战争从公元前431年至前404年。"),
    ("ja", "カエサルは44年に死んだ。", "カエサルは紀元前44年に死んだ。"),
    ("en", "Caesar died in 44.", "Caesar died in 44 before Christ."),
    ("en", "Hammurabi died in 1750.", "In 1750 BC the king Hammurabi died."),
    ("zh", "秦朝建立于221年。", "秦朝建立于前221年。"),
    ("en", "Children take 500 mg, adults 250 mg.", "Adults take 500 mg, children 250 mg."),
    ("en", "The dose is 250 mg for adults and 500 mg for children.", "Adults take 500 mg, children 250 mg."),
    (
        "en",
        "Children and adults take 5 and 2 mg, respectively.",
        "Adults and children take 5 and 2 mg, respectively.",
    ),
    ("en", "Adults take 250 mg and children 500 mg.", "Adults and children take 500 mg and 250 mg, respectively."),
    ("en", "In 2020 it sold 5 million, and in 2021 7 million.", "It sold 7 million in 2020 and 5 million in 2021."),
    ("de", "Kinder nehmen 500 mg, Erwachsene 250 mg.", "Erwachsene nehmen 500 mg und Kinder 250 mg."),
    ("fr", "Les enfants prennent 500 mg et les adultes 250 mg.", "Les adultes prennent 500 mg, les enfants 250 mg."),
    ("es", "Los niños toman 500 mg y los adultos 250 mg.", "Los adultos toman 500 mg y los niños 250 mg."),
    ("zh", "儿童服用500毫克，成人250毫克。", "成人服用500毫克，儿童250毫克。"),
]
LET_PASS = [
    ("en", "Mount Etna is in Sicily.", "Mount Etna in Sicily is one of the most active volcanoes in the world."),
    ("en", "Etna is roughly 3,350 m tall.", "Mount Etna is one of the most active volcanoes and is 3,350 metres high."),
    ("en", "The firm plans to cut about 200 jobs by 2025.", "Some 200 jobs will be cut by 2025, mostly in the north."),
    ("en", "If you lose your card, you pay 3 euros for a new one.", "A lost card costs 3 euros to replace."),
    ("en", "Books can be kept for four weeks.", "Members can borrow up to twelve books for four weeks."),
    ("en", "You must wait four hours between doses.", "Wait four hours between doses."),
    ("en", "There must be four hours or more between doses.", "Wait at least four hours between doses."),
    ("en", "You must tell the seller in writing.", "Tell the seller in writing."),
    ("en", "Call 112.", "You should call 112."),
    (
        "en",
        "Too much of it may damage the liver.",
        "Too much of it can damage the liver, even if the person feels well.",
    ),
    ("en", "Take it up to four times a day.", "Take it up to four times in 24 hours."),
    ("en", "Wait thirty minutes.", "Wait half an hour."),
    ("en", "Wait 60 minutes.", "Wait an hour."),
    ("en", "Interest is 0.5 percent.", "Interest is half a percent."),
    ("en", "Take a tablet at night.", "Take one tablet at night."),
    ("en", "Take it twice a day for three days.", "Take it twice a day for 3 days."),
    ("en", "The fee is $5 an hour.", "The fee is $5 an hour for stays of 3 hours."),
    ("en", "Net growth was -3 percent.", "Net growth was minus 3 percent."),
    ("en", "The test must be negative 48 hours before.", "The test must be negative 48 hours before."),
    ("de", "Die Temperatur beträgt -5 Grad.", "Die Temperatur beträgt minus 5 Grad."),
    ("zh", "温度为-5度。", "温度为零下5度。"),
    ("zh", "温度为5度-10度。", "温度为5度-10度。"),
    ("de", "Es kamen 200 Leute.", "Es kamen zweihundert Leute."),
    ("de", "Es kostet 2,5 Euro.", "Es kostet zweieinhalb Euro."),
    ("de", "Das Mittel 3-mal am Tag nehmen.", "Das Mittel dreimal am Tag nehmen."),
    ("de", "Im Jahrhundert diesmal allemal.", "Diesmal im Jahrhundert allemal."),
    ("de", "Das fünfte Kapitel gilt.", "Kapitel 5 gilt."),
    ("de", "Erste Hilfe gilt.", "Hilfe gilt."),
    ("de", "Die Frist läuft am 5. Mai ab.", "Die Frist läuft am fünften Mai ab."),
    ("de", "Die Frist läuft am fünften Mai ab.", "Die Frist läuft am 5. Mai 2020 ab."),
    ("en", "It was built in the 19th century.", "It was built in the nineteenth century."),
    ("en", "The 21st day is free.", "The twenty-first day is free."),
    ("zh", "价格上涨了百分之二十。", "价格上涨了两成。"),
    ("zh", "规定一成不变。", "规定一成不变。"),
    ("en", "Keep it at 2 to 8 °C.", "Keep it at 2-8 °C."),
    ("en", "The longest course is 10 days.", "The course is 5-10 days."),
    ("en", "Prices rose to 20 euros.", "Prices rose from 10 to 20 euros."),
    ("en", "The 500 mg tablets are sold.", "The 250 or 500 mg tablets are sold."),
    ("en", "Give 5 mg/kg/day.", "Give 5 mg/kg a day."),
    ("en", "It runs at 100 km/h.", "It runs at 100 kilometres per hour."),
    ("en", "The area is 5 square metres.", "The area is 5 m²."),
    ("en", "The farm has 50,000 square metres.", "The farm has 5 hectares."),
    ("en", "Use 100 kPa of pressure.", "Use 1 bar of pressure."),
    ("en", "It was passed on 03/05/2019.", "It was passed on 03/05/19."),
    ("en", "It was passed on 03/05/2019.", "It was passed on 03/05/2019."),
    ("zh", "要借轮椅到隔天，不在一楼办理。", "要过夜借轮椅，不在一楼办理。"),
    ("zh", "9:15开门。", "九点一刻开门。"),
    ("en", "Pay at 5:15.", "Pay at a quarter past five."),
    ("de", "Das Bad öffnet um 7:30 Uhr.", "Das Bad öffnet um halb acht."),
    ("en", "Take it every two days.", "Take it every 2 days."),
    ("en", "Open on Saturdays and Sundays.", "Open on Saturdays and Sundays, not on weekdays alone."),
    ("en", "Sugar hardly affects behaviour.", "Sugar barely affects behaviour."),
    ("en", "You don't need a visa.", "You dont need a visa."),
    ("en", "Tenants do not pay the fee.", "Tenants are exempt from the fee."),
    ("en", "The visit is free.", "The visit is free of charge."),
    ("en", "The museum is far from the city.", "The museum is far from the old city."),
    ("en", "The test is not reliable.", "The test is unreliable."),
    ("en", "The plant is not toxic to dogs.", "The plant is non-toxic to dogs."),
    ("en", "The cover was found under the income table.", "The cover was discovered under the income table."),
    ("de", "Das Mittel ist nicht giftig.", "Das Mittel ist ungiftig."),
    ("de", "Das Mittel hilft nicht.", "Das Mittel hilft keineswegs."),
    ("zh", "孕妇禁用此药。", "孕妇禁用该药。"),
    ("en", "Caesar died in 44 B.C.E. in Rome.", "Caesar died in 44 BC in Rome."),
    ("en", "Caesar died in 44.", "Caesar died in AD 44."),
    ("en", "The war began in 431 BC.", "The war lasted from 431 to 404 BC."),
    ("en", "It was in the fifth century BC.", "It was in the 5th century BC."),
    ("en", "It rose from 14 to 27 in BC and Ontario.", "It rose from 14 to 27 in BC and Ontario."),
    ("en", "BC Hydro raised its prices in 2010.", "In 2010 BC Hydro raised its prices."),
    ("en", "In 2010 BC Hydro raised its prices.", "BC Hydro raised its prices in 2010."),
    ("en", "In 2010 B.C. Hydro raised its prices.", "B.C. Hydro raised its prices in 2010."),
    ("en", "The law of 2005 was BC's first.", "The 2005 BC law was the first in BC."),
    ("en", "The war lasted from 1900 BC to 1880 BC.", "The war lasted from 1900 to 1880 BC."),
    ("en", "The temple dates to 447 before the common era.", "The temple dates to 447 BC."),
    ("zh", "秦朝建立于前221年。", "秦朝建立于公元前221年。"),
    ("zh", "前10年免费。", "最初10年免费。"),
    ("de", "Im Jahr 44 vor Christus starb Caesar.", "Caesar starb im Jahr 44 v. Chr."),
    ("fr", "César est mort en 44 avant J.-C.", "César est mort en 44 av. J.-C."),
    ("zh", "凯撒在公元前44年去世。", "凯撒于公元前44年去世。"),
    ("en", "Children take 250 mg, adults 500 mg.", "Adults take 500 mg, children 250 mg."),
    ("en", "The dose is 500 mg for adults and 250 mg for children.", "Adults take 500 mg, children 250 mg."),
    ("en", "Adults take 500 mg and children 250 mg.", "Adults and children take 500 mg and 250 mg, respectively."),
    ("en", "In 2020 it sold 7 million, and in 2021 5 million.", "It sold 7 million in 2020 and 5 million in 2021."),
    ("en", "At night children take 500 mg, and 250 mg at noon.", "Children take 250 mg at noon and 500 mg at night."),
    ("zh", "儿童服用250毫克，成人500毫克。", "成人服用500毫克，儿童250毫克。"),
]


@pytest.mark.parametrize(("language", "claim", "evidence"), STOPPED)
def test_another_fact_is_stopped(language, claim, evidence):
    assert fault(claim, evidence, language)


@pytest.mark.parametrize(("language", "claim", "evidence"), LET_PASS)
def test_the_same_fact_in_other_words_passes(language, claim, evidence):
    assert fault(claim, evidence, language) is None


@pytest.fixture
def work(monkeypatch):
    """How often two numbers were compared, and a unit was looked for."""
    done = {"says": 0, "unit_at": 0}
    says, unit_at = Number.says, numbers.unit_at

    def counted_says(number, other):
        done["says"] += 1
        return says(number, other)

    def counted_unit_at(text, position):
        done["unit_at"] += 1
        return unit_at(text, position)

    monkeypatch.setattr(Number, "says", counted_says)
    monkeypatch.setattr(numbers, "unit_at", counted_unit_at)
    facts.cache_clear()
    return done


@pytest.mark.parametrize(
    ("claim", "evidence", "most"),
    [
        ("1 to " * 399 + "1 mg", "2 to " * 399 + "2 mg", 10),
        ("a tablet " * 222, "5 mg " * 400, 10),
        ("1 " * 1000, "2 " * 1000, 10),
        (" ".join(map(str, range(400))), " ".join(map(str, range(399, -1, -1))), 2 * 400 * 400),
    ],
)
def test_the_work_on_hundreds_of_numbers_is_bounded(claim, evidence, most, work):
    compare(*(facts(text, "en") for text in (claim, evidence)))
    assert work["says"] <= most
    assert work["unit_at"] <= len(claim) + len(evidence)


@pytest.mark.parametrize(
    ("text", "unit", "written"),
    [("价格上涨百分之12。", "percent", "百分之12"), ("见第3章。", "ordinal", "第3")],
)
def test_digits_behind_han_characters_stand_where_these_begin(text, unit, written):
    (found,) = (number for number in numbers.numbers(text, "zh") if number.unit == unit)
    assert text[found.start : found.end] == found.text == written
