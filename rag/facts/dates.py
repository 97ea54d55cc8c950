"""Dates, times of day, weekdays and how often."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag.facts.eras import before_christ
from rag.facts.han_numbers import han_value
from rag.facts.types import Date, Term, blank
from rag.facts.units import unit_at

_MONTHS = (
    "january jan januar janvier enero",
    "february feb februar février fevrier febrero",
    "march mar märz mars marzo",
    "april apr avril abril",
    "may mai mayo",
    "june jun juni juin junio",
    "july jul juli juillet julio",
    "august aug août aout agosto",
    "september sep sept septembre septiembre",
    "october oct oktober okt octobre octubre",
    "november nov novembre noviembre",
    "december dec dezember dez décembre decembre diciembre",
)
_MONTH = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_M = rf"(?P<month>{'|'.join(sorted(_MONTH, key=len, reverse=True))})\.?(?!\w)"
_D = r"(?P<day>\d{1,2})(?!\d)(?:st|nd|rd|th|er|\.)?"
_NTH = {
    f"{stem}{end}": day
    for day, stem in enumerate(
        "erst zweit dritt viert fünft sechst siebt acht neunt zehnt elft zwölft dreizehnt vierzehnt fünfzehnt sechzehnt"
        " siebzehnt achtzehnt neunzehnt zwanzigst".split(),
        1,
    )
    for end in ("en", "er", "e")
}  # days in German words
_Y = r"(?P<year>[12]\d{3})(?!\d)"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![\d-])(?P<year>[12]\d{3})-(?P<month>\d{1,2})-(?P<day>\d{1,2})(?!\d)",
        r"(?<!\d)(?P<year>\d{4})年(?:(?P<month>\d{1,2})月(?:(?P<day>\d{1,2})[日号號])?)?(?!间)",
        r"(?<!\d)(?P<month>\d{1,2})月(?:(?P<day>\d{1,2})[日号號])?",
        rf"(?<!\w)(?P<nth>{'|'.join(_NTH)})\s{_M}(?:,?\s{_Y})?",
        rf"(?<![\w.]){_D}\s(?:of\s|de\s)?{_M}(?:,?\s(?:de\s|del\s)?{_Y})?",
        rf"(?<!\w){_M}\s{_D}(?!\s?[:%]|\.\d)(?:,?\s{_Y})?",
        rf"(?<!\w){_M},?\s(?:de\s|del\s|of\s)?{_Y}",
    )
)
_BARE_MONTH = re.compile(
    rf"(?<!\w)(?P<before>in|since|until|by|of|during|from|every|next|last|im|seit|bis|en|de|depuis|desde)\s{_M}",
    re.IGNORECASE,
)
_LONG_MONTH = re.compile(r"(?<!\w)(January|February|April|June|July|August|September|October|November|December)(?!\w)")
_SLASHES = re.compile(r"(?<![\d/.])(\d{1,4})([/.])(\d{1,2})\2(\d{4}|\d{2})(?![\d/]|\.\d)")
_HAN_YEAR = re.compile(
    r"(?P<year>[〇零一二三四五六七八九]{4})年(?:(?P<month>[一二三四五六七八九十]{1,2})月(?:(?P<day>[一二三四五六七八九十]{1,3})[日号])?)?"
)
_HAN_MONTH = re.compile(
    r"(?<![几数个])(?P<month>十[一二]?|[一二三四五六七八九])月(?:(?P<day>[一二三]?十[一二三四五六七八九]?"
    r"|[一二三四五六七八九])[日号])?"
)
_YEAR = re.compile(r"(?<![\d.,$€£¥/'-])(?P<year>1[5-9]\d\d|20\d\d)(?![\d%/]|[.,]\d|['’]?s\b)")
_WEEKDAYS = (
    "monday mon. montag lundi lunes 星期一 周一 礼拜一 月曜",
    "tuesday tue. dienstag mardi martes 星期二 周二 礼拜二 火曜",
    "wednesday wed. mittwoch mercredi miércoles 星期三 周三 礼拜三 水曜",
    "thursday thu. donnerstag jeudi jueves 星期四 周四 礼拜四 木曜",
    "friday fri. freitag vendredi viernes 星期五 周五 礼拜五 金曜",
    "saturday sat. samstag sonnabend samedi sábado 星期六 周六 礼拜六 土曜",
    "sunday sun. sonntag dimanche domingo 星期日 星期天 周日 礼拜天 日曜",
)
_LASTS = "".join(rf"(?<!\b{word} )" for word in "for lasts takes after within about than half of is".split())
_RATES = {
    "minute": r"(?:per|a|every|each) minute|每分钟|pro minute|毎分",
    "hour": r"(?:per|an?|every|each|\s?/) ?(?:hour|h)|hourly|每小时|pro stunde|par heure|por hora|毎時",
    "day": r"(?:per|a|every|each|/ ?) ?day|daily|(?:per|every|each|(?<=times )(?:with)?in) 24 hours"
        r"|每天|每日|(?<!隔)一天(?=[最内中不至能吃服用要]|[一二两三四五六\d])"
        r"|pro tag|am tag|täglich|jeden tag|par jour|chaque jour|al día|por día|cada día|diari[oa]s?"
        r"|(?:一|1)日(?=[に\d最])|毎日",
    "other day": r"(?:every|each) (?:other|second|2nd|two|2) days?|on alternate days|alternate-day"
        r"|每隔一[天日]|隔[天日](?=[服吃用注给一1])|每(?:两|2)天|jeden zweiten tag|alle (?:zwei|2) tage"
        r"|tous les deux jours|cada dos días",
    "night": r"(?:per|a|every|each) night|nightly|每晚|毎晩",
    "week": r"(?:per|a|every|each) week|weekly|每周|每星期|一周(?=[最内不至\d一两三])|pro woche"
        r"|(?<=mal )(?:in der|die) woche|wöchentlich|par semaine|chaque semaine|a la semana|por semana|cada semana"
        r"|毎週|週(?=\d)",
    "month": r"(?:per|a|every|each) month|monthly|每个?月|pro monat|monatlich|par mois|chaque mois|al mes|por mes"
        r"|cada mes|毎月",
    "year": r"(?:per|a|every|each) year|yearly|annual(?:ly)?|per annum|每年|pro jahr|jährlich|par an|chaque année"
        r"|al año|por año|cada año|毎年",
}  # fmt: skip


def _any(names: str) -> str:
    words = names.split()
    latin = "|".join(re.escape(word) for word in words if word.isascii() or word[0].isascii())
    return rf"(?<!\w)(?:{latin})(?:s|en|es)?(?!\w)|{'|'.join(word for word in words if not word[0].isascii())}"


_UNDER = {
    "minute": "min|minute",
    "hour": "h|hr|hour|stunde|heure|hora|小时",
    "day": "d|day|tag|jour|día|天|日",
    "week": "week|wk|woche",
    "month": "month|monat",
    "year": "year|jahr",
}  # of a dose by weight: 5 mg/kg/day
_WEEKDAY = {str(day): re.compile(_any(names), re.IGNORECASE) for day, names in enumerate(_WEEKDAYS)}
_RATE = {
    rate: re.compile(
        rf"{_LASTS}(?<![^\W\d_\u2e80-\u9fff])(?:{words})(?![a-zà-ÿ])"
        rf"|(?<=kg)\s?/\s?(?:{_UNDER.get(rate, 'night')})(?!\w)",
        re.IGNORECASE,
    )
    for rate, words in _RATES.items()
}
_TIMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![\d:.])(?P<hour>\d{1,2})(?:[:.](?P<minute>\d{2}))?\s?(?P<half>[ap])\.?\s?m\b\.?",
        r"(?<![\d:])(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::\d{2})?(?![\d:])",
        r"(?<!\d)(?P<hour>\d{1,2})(?:[:.](?P<minute>\d{2}))?\s?uhr\b",
        r"(?<!\d)(?P<hour>\d{1,2})\s?h\s?(?P<minute>\d{2})(?!\d)",
        r"(?P<half>上午|下午|早上|晚上|中午|凌晨|午前|午後)?(?P<hour>\d{1,2}|十[一二]?|[一二两三四五六七八九])"
        r"[点點時](?!间|間|之|五)(?:(?P<minute>\d{1,2})分|(?P<thirty>半)|(?P<quarters>[一三])刻)?",
    )
)
_HOURS = {
    word: hour % 12
    for words in (
        "one two three four five six seven eight nine ten eleven twelve",
        "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "1 2 3 4 5 6 7 8 9 10 11 12",
    )
    for hour, word in enumerate(words.split(), 1)
}
_SPOKEN = re.compile(
    r"(?<!\w)(?:(?:a\s)?(?P<part>quarter|half)\s(?P<way>past|to)|(?P<teil>halb|dreiviertel|viertel\s(?:nach|vor)))"
    rf"\s(?P<hour>{'|'.join(sorted(_HOURS, key=len, reverse=True))})(?![\w:]|\.\d)(?!\s(?:of|percent|%))"
    r"(?:\s(?:o'clock|uhr))?(?:\s?(?P<half>[ap])\.?\s?m\b\.?)?",
    re.IGNORECASE,
)
_SPOKEN_MINUTES = {
    "quarter past": 15, "half past": 30, "quarter to": -15, "half to": -30,
    "halb": -30, "dreiviertel": -15, "viertel nach": 15, "viertel vor": -15,
}  # fmt: skip
_NOON = re.compile(r"(?<!\w)(noon|midnight|mittags?|mitternacht|midi|minuit|mediodía|medianoche)(?!\w)", re.IGNORECASE)


def dates(text: str) -> list[Date]:
    """The dates of a normalised text; longer ones are found before their parts. Years before Christ are below 0."""
    found: list[Date] = []
    free = text
    for pattern in _DATES:
        matches = list(pattern.finditer(free))
        for match in matches:
            parts = match.groupdict()
            nth = _NTH[parts["nth"].lower()] if parts.get("nth") else None
            reading = (_int(parts.get("year")), _month(parts["month"]), nth or _int(parts.get("day")))
            if (reading[1] or 1) <= 12 and (reading[2] or 1) <= 31:
                found.append(Date((reading,), match[0], match.start()))
                free = blank(free, *match.span())
    for match in list(_SLASHES.finditer(free)):
        readings = tuple(_readings(match))
        if readings:
            found.append(Date(readings, match[0], match.start()))
            free = blank(free, *match.span())
    for pattern in (_HAN_YEAR, _HAN_MONTH):
        for match in list(pattern.finditer(free)):
            year = _han(match.groupdict().get("year"))
            found.append(Date(((year, _han(match["month"]), _han(match["day"])),), match[0], match.start()))
            free = blank(free, *match.span())
    for match in [*_BARE_MONTH.finditer(free), *_LONG_MONTH.finditer(free)]:
        name = match.groupdict().get("month") or match[1]
        start = match.end() - len(name)
        if all(date.start != start for date in found):
            found.append(Date(((None, _month(name), None),), name, start))
    found += (
        Date(((int(match["year"]), None, None),), match["year"], match.start())
        for match in _YEAR.finditer(free)
        if unit_at(free, match.end()) is None
    )
    return [_in_era(date, text) for date in found]


def _in_era(date: Date, text: str) -> Date:
    era = before_christ(text, date.start, date.end)
    if era is None:
        return date
    parts = tuple((year and -year, month, day) for year, month, day in date.parts)
    return Date(parts, text[slice(*era)], era[0])


def terms(text: str) -> list[Term]:
    """Times of day, weekdays and rates of a normalised text."""
    found = [*_times(text)]
    for kind, table in (("weekday", _WEEKDAY), ("rate", _RATE)):
        for value, pattern in table.items():
            found += (Term(kind, value, match[0], match.start()) for match in pattern.finditer(text))
    return found


def _times(text: str) -> Iterator[Term]:
    free = text
    for match in _SPOKEN.finditer(text):
        said = match["teil"] or f"{match['part']} {match['way']}"
        minutes = 60 * _HOURS[match["hour"].lower()] + _SPOKEN_MINUTES[" ".join(said.lower().split())]
        minutes += 720 if (match["half"] or "").lower() == "p" else 0
        yield Term(
            "time", f"{minutes // 60 % 12 + 12 * (minutes >= 720):02}:{minutes % 60:02}", match[0], match.start()
        )
        free = blank(free, *match.span())
    for pattern in _TIMES:
        for match in list(pattern.finditer(free)):
            parts = match.groupdict()
            hour = int(parts["hour"]) if parts["hour"].isdigit() else _han(parts["hour"]) or 0
            minute = 30 if parts.get("thirty") else int(parts.get("minute") or 0)
            minute = {"一": 15, "三": 45}.get(parts.get("quarters") or "", minute)
            half = (parts.get("half") or "").lower()
            if half in ("p", "下午", "晚上", "午後") and hour < 12:
                hour += 12
            elif half in ("a", "凌晨", "午前") and hour == 12:
                hour = 0
            if hour <= 24 and minute < 60:
                yield Term("time", f"{hour % 24:02}:{minute:02}", match[0], match.start())
                free = blank(free, *match.span())
    for match in _NOON.finditer(text):
        midnight = match[1].lower() in ("midnight", "mitternacht", "minuit", "medianoche")
        yield Term("time", "00:00" if midnight else "12:00", match[0], match.start())


def _readings(match: re.Match[str]) -> Iterator[tuple[int | None, int | None, int | None]]:
    """Day first, then month first where a slash allows it."""
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    if len(match[4]) == 2:
        year += 2000 if year < 50 else 1900
    if len(match[1]) == 4:
        return
    if 1 <= second <= 12 and 1 <= first <= 31:
        yield year, second, first
    if match[2] == "/" and 1 <= first <= 12 and 1 <= second <= 31:
        yield year, first, second


def _int(digits: str | None) -> int | None:
    return int(digits) if digits else None


def _month(name: str | None) -> int | None:
    if not name:
        return None
    return int(name) if name.isdigit() else _MONTH[name.lower()]


def _han(digits: str | None) -> int | None:
    return int(han_value(digits)) if digits else None
