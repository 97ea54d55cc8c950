"""Units of measure: how each is written, its dimension, and its size in the dimension's base unit."""

from __future__ import annotations

import re
from fractions import Fraction

from rag.facts.types import Number

Unit = tuple[str, Fraction, int]  # dimension, factor, and where in the text it ends

# dimension: base unit first, then (factor, ways to write it); what is written in capitals or one letter keeps its case
_TABLE: dict[str, tuple[tuple[str, str], ...]] = {
    "mass": (
        ("1", "g gram grams gramme grammes gramm gramo gramos 克 公克 グラム"),
        (
            "1000",
            "kg kilo kilos kilogram kilograms kilogramme kilogrammes kilogramm kilogramo kilogramos 公斤 千克"
            " キログラム キロ",
        ),
        ("1/1000", "mg milligram milligrams milligramme milligrammes milligramm miligramo miligramos 毫克 ミリグラム"),
        (
            "1/1000000",
            "µg μg mcg ug microgram micrograms microgramme mikrogramm microgrammes microgramo microgramos"
            " 微克 マイクログラム",
        ),
        ("1/1000000000", "ng nanogram nanograms 纳克"),
        ("1000000", "t tonne tonnes tonnen tonelada toneladas 吨 トン"),
        ("500", "斤"),
        ("45359237/100000", "lb lbs pound pounds"),
        ("45359237/1600000", "oz ounce ounces"),
        ("635029318/100000", "stone"),
    ),
    "length": (
        ("1", "m metre metres meter meters mètre mètres metro metros 米 公尺 メートル"),
        (
            "1000",
            "km kilometre kilometres kilometer kilometers kilomètre kilomètres kilómetro kilómetros 公里 千米"
            " キロメートル",
        ),
        (
            "1/100",
            "cm centimetre centimetres centimeter centimeters zentimeter centimètre centimètres centímetro"
            " centímetros 厘米 公分 センチ センチメートル",
        ),
        (
            "1/1000",
            "mm millimetre millimetres millimeter millimeters millimètre millimètres milímetro milímetros"
            " 毫米 ミリ ミリメートル",
        ),
        ("1/1000000", "µm μm micrometre micrometres micrometer micrometers 微米"),
        ("1/1000000000", "nm nanometre nanometres nanometer nanometers 纳米"),
        ("1609344/1000", "mi mile miles 英里 meile meilen milla millas"),
        ("3048/10000", "ft foot feet 英尺"),
        ("254/10000", "inch inches 英寸 zoll"),
        ("9144/10000", "yd yard yards 码"),
    ),
    "volume": (
        ("1", "l L litre litres liter liters litro litros 升 公升 リットル"),
        ("1/10", "dl dL decilitre decilitres"),
        ("1/100", "cl cL centilitre centilitres"),
        ("1/1000", "ml mL cc millilitre millilitres milliliter milliliters mililitro mililitros 毫升 ミリリットル"),
        ("1/1000000", "µl μl µL microlitre microlitres 微升"),
        ("1000", "m^3 m3 cubic-metre cubic-metres cubic-meter cubic-meters kubikmeter kubikmetern 立方米"),
        ("1/1000", "cm^3 cm3 cubic-centimetre cubic-centimetres cubic-centimeter cubic-centimeters 立方厘米"),
    ),
    "area": (
        (
            "1",
            "m^2 m2 sqm square-metre square-metres square-meter square-meters quadratmeter quadratmetern 平方米 平米",
        ),
        (
            "1000000",
            "km^2 km2 square-kilometre square-kilometres square-kilometer square-kilometers quadratkilometer 平方公里",
        ),
        ("1/10000", "cm^2 cm2 square-centimetre square-centimetres square-centimeter square-centimeters 平方厘米"),
        ("1/1000000", "mm^2 mm2"),
        ("10000", "ha hectare hectares hektar 公顷"),
        ("40468564224/10000000", "acre acres 英亩"),
        ("9290304/100000000", "ft^2 ft2 sq-ft square-foot square-feet 平方英尺"),
        ("2589988110336/1000000", "square-mile square-miles 平方英里"),
    ),
    "gallon": (("1", "gallon gallons"), ("1/8", "pint pints")),
    "teaspoon": (("1", "tsp teaspoon teaspoons teelöffel 茶匙"), ("3", "tbsp tablespoon tablespoons esslöffel 汤匙")),
    "time": (
        ("1", "s sec secs second seconds sekunde sekunden seconde secondes segundo segundos 秒 秒钟 秒間"),
        ("60", "min mins minute minutes minuten minuto minutos 分钟 分鐘 分間"),
        ("3600", "h hr hrs hour hours stunde stunden heure heures hora horas 小时 个小时 小時 時間"),
        ("86400", "day days tag tage tagen jour jours día días 天 日間"),
        ("604800", "week weeks woche wochen semaine semaines semana semanas 周 星期 个星期 週 週間"),
        ("1209600", "fortnight fortnights"),
        ("1/1000", "ms millisecond milliseconds 毫秒"),
    ),
    "months": (
        ("1", "month months monat monate monaten mois mes meses 个月 個月 か月 ヶ月 カ月 ヵ月"),
        ("12", "yr yrs year years jahr jahre jahren an ans année années año años 年 岁 歲 歳 年間 周岁"),
        ("120", "decade decades jahrzehnt jahrzehnte"),
        ("1200", "century centuries jahrhundert jahrhunderte siècle siècles siglo siglos 世纪 世紀"),
    ),
    "celsius": (("1", "°C ℃ celsius 摄氏度 degrees-celsius"),),
    "fahrenheit": (("1", "°F ℉ fahrenheit 华氏度"),),
    "kelvin": (("1", "kelvin kelvins"),),
    "degree": (("1", "° degree degrees grad degré degrés grado grados 度"),),
    "energy": (("1", "J joule joules"), ("1000", "kJ kilojoule kilojoules 千焦"), ("3600000", "kWh")),
    "calorie": (("1", "cal calorie calories"), ("1000", "kcal kilocalorie kilocalories 千卡 大卡")),
    "power": (
        ("1", "W watt watts"),
        ("1000", "kW kilowatt kilowatts"),
        ("1000000", "MW megawatt megawatts"),
        ("1000000000", "GW"),
    ),
    "voltage": (("1", "V volt volts 伏"), ("1000", "kV")),
    "current": (("1", "A amp amps ampere amperes 安培"), ("1/1000", "mA")),
    "frequency": (("1", "Hz hertz 赫兹"), ("1000", "kHz"), ("1000000", "MHz"), ("1000000000", "GHz")),
    "data": (("1", "byte bytes"), ("1000", "kB KB"), ("1000000", "MB"), ("1000000000", "GB"), ("1000000000000", "TB")),
    "pressure": (("1", "Pa pascal"), ("100", "hPa mbar"), ("1000", "kPa"), ("100000", "bar"), ("6894757/1000", "psi")),
    "radiation": (
        ("1", "Sv sievert sieverts"),
        ("1/1000", "mSv millisievert millisieverts"),
        ("1/1000000", "µSv μSv microsievert microsieverts"),
    ),
    "mmhg": (("1", "mmHg 毫米汞柱"),),
    "amount": (("1", "mol mole moles"), ("1/1000", "mmol 毫摩尔"), ("1/1000000", "µmol μmol")),
    "iu": (("1", "IU I.E. IE UI 国际单位"),),
    "speed": (("1", "km/h kph"), ("1609344/1000000", "mph")),
    "percent": (("1", "% percent prozent porcentaje パーセント"), ("1/10", "‰")),
    "points": (("1", "个百分点 百分点 prozentpunkte"),),
    "usd": (("1", "$ US$ USD dollar dollars 美元 ドル dólar dólares"), ("1/100", "cents cent")),
    "eur": (("1", "€ EUR euro euros 欧元 ユーロ"),),
    "gbp": (("1", "£ GBP 英镑"),),
    "jpy": (("1", "JPY yen 日元 円"),),
    "cny": (("1", "RMB CNY yuan 元 块 块钱 人民币"),),
    "chf": (("1", "CHF franken"),),
    "inr": (("1", "₹ INR rupee rupees 卢比"),),
    "tablet": (("1", "tablet tablets tablette tabletten comprimé comprimés comprimido comprimidos 片 錠"),),
    "pill": (("1", "pill pills pille pillen pilule pilules pastilla pastillas 粒"),),
    "capsule": (("1", "capsule capsules kapsel kapseln gélule gélules gélules cápsula cápsulas 胶囊 カプセル"),),
    "drop": (("1", "drop drops tropfen goutte gouttes gota gotas 滴"),),
    "spoon": (("1", "spoon spoons spoonful spoonfuls löffel 勺"),),
    "scoop": (("1", "scoop scoops"),),
    "spray": (("1", "spray sprays"),),
    "patch": (("1", "patch patches pflaster 贴"),),
    "vial": (("1", "vial vials ampoule ampoules ampulle ampullen"),),
    "puff": (("1", "puff puffs hub hübe"),),
    "sachet": (("1", "sachet sachets beutel sobre sobres 袋 包"),),
    "times": (("1", "time times mal fois vez veces 次 回 遍"), ("1/1", "一次")),
    "fold": (("1", "倍 fold"),),
    "person": (("1", "person persons people personen personne personnes persona personas 人 名 位"),),
    "cup": (("1", "cup cups tasse tassen tasses taza tazas 杯"),),
    "glass": (("1", "glass glasses glas gläser verre verres vaso vasos"),),
    "dose": (("1", "dose doses dosis dosen dosis 剂"),),
    "bottle": (("1", "bottle bottles flasche flaschen bouteille bouteilles botella botellas 瓶"),),
}
_WORDS = {
    "per cent": "%",
    "pour cent": "%",
    "por ciento": "%",
    "degrees celsius": "°C",
    "degrees fahrenheit": "°F",
    "percentage points": "百分点",
    "percentage point": "百分点",
    "grad celsius": "°C",
    "degrés celsius": "°C",
    "grados celsius": "°C",
    "international units": "IU",
    "us dollars": "$",
    "° c": "°C",
    "° f": "°F",
    "miles per hour": "mph",
    "kilometres per hour": "km/h",
    "kilometers per hour": "km/h",
    "个百分点": "百分点",
    "pounds sterling": "£",
}


def _units() -> dict[str, tuple[str, Fraction]]:
    found: dict[str, tuple[str, Fraction]] = {}
    for dimension, rows in _TABLE.items():
        for factor, names in rows:
            for name in names.split():
                found.setdefault(name, (dimension, Fraction(factor)))
    found |= {
        name.replace("-", " "): unit for name, unit in found.items() if name.startswith(("square", "cubic", "sq-"))
    }
    found |= {phrase: found[name] for phrase, name in _WORDS.items()}
    return found


_UNITS = _units()
_FOLDED = {name.lower(): unit for name, unit in reversed(_UNITS.items()) if len(name) > 1}
_HAN = re.compile(r"[\u2e80-\u9fff\u3040-\u30ff]")


def _alternatives() -> str:
    names = sorted(_UNITS, key=len, reverse=True)
    wide = "|".join(re.escape(name) for name in names if _HAN.search(name))
    powers = "|".join(re.escape(name) for name in names if name[-1].isdigit())
    signs = "|".join(re.escape(name) for name in names if not name[-1].isalnum() and not _HAN.search(name))
    latin = "|".join(re.escape(name) for name in names if name[-1].isalpha() and not _HAN.search(name))
    return rf"(?:{wide}|(?:{powers})(?!\d)|(?:{latin})(?![^\W\d_\u2e80-\u9fff])|(?:{signs}))"


NAME = _alternatives()
CURRENCY = r"(?:US\$|[$€£₹¥]|USD|EUR|GBP|CHF)"
_ONE = re.compile(NAME, re.IGNORECASE)
_SUFFIX = re.compile(rf"(?:\s?|-){NAME}(?:(?:\s?/\s?|\sper\s)(?:{NAME}))?", re.IGNORECASE)


def unit_at(text: str, position: int) -> Unit | None:
    """The unit that starts at a position, behind at most one space or hyphen."""
    found = _SUFFIX.match(text, position)
    if found is None:
        return None
    parts = [_unit(part[0]) for part in _ONE.finditer(found[0])]
    if not parts or None in parts:
        return None
    whole = _unit(found[0].strip(" -"))
    if whole:
        return (*whole, found.end())
    known = [part for part in parts if part]
    if len(known) == 1:
        return (*known[0], found.end())
    (over, factor), (under, divisor) = known[0], known[-1]
    return f"{over}/{under}", factor / divisor, found.end()


def with_unit(text: str, value: Fraction, start: int, end: int) -> Number:
    """The number at a place in the text, with the unit that stands behind it."""
    unit = unit_at(text, end)
    if unit is None:
        return Number(value, "", text[start:end], start)
    dimension, factor, end = unit
    return Number(value * factor, dimension, text[start:end], start, written=value)


def currency(sign: str) -> str:
    """The dimension of a currency's sign."""
    return "jpy-or-cny" if sign == "¥" else _UNITS[sign][0]


def _unit(name: str) -> tuple[str, Fraction] | None:
    return _UNITS.get(name) or _FOLDED.get(name.lower())
