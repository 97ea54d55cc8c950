"""Proper names and codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rag.facts.eras import without_eras
from rag.facts.types import Placed, Term

_URL = r"(?:https?://|www\.)[^\s<>\"'()，。；]{1,500}"
_EMAIL = r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"
_VERSION = r"(?<![\w.])v?\d+(?:\.\d+){2,}(?![\w])|(?<!\w)v\d+(?:\.\d+)*(?!\w)"
_PHONE = (
    r"(?<![\w.,-])(?!\d{4}-\d\d?-\d\d?(?!\d))(?:\+\d{1,3}[ -]?)?(?:\(\d{1,5}\)[ -]?)?\d{2,5}(?:[ -]\d{2,5}){2,4}"
    r"(?![\w-]|[.,]\d)|\+\d{7,15}(?!\d)|(?<!\d)0\d{2,4}[ -]\d{3,8}(?!\d)"
)
_MIXED = r"(?<![\w-])(?=[\w-]{0,30}[A-Za-z])(?=[\w-]{0,30}\d)[A-Z][A-Za-z]{0,15}-?\d{1,6}[A-Za-z\d]{0,6}(?![\w])"
_DECADE = r"(?<!\d)1?\d{2,3}0['’]?s\b"
_CODE = re.compile(
    "|".join(f"(?:{pattern})" for pattern in (_URL, _EMAIL, _VERSION, _PHONE, _DECADE, _MIXED)), re.ASCII
)
_WORD = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*")
_SMALL = frozenset(
    "i i'm i'll the a an in on at of for and or but to by with from as if when it this that these those he she they"
    " we you there der die das ein eine in im am auf für und oder aber wenn es sie er wir man nach vor bei mit le la"
    " les un une des en dans sur pour et ou mais si il elle on nous vous ce cette el los las un una en sobre para y o"
    " pero si se es esto este esta no".split()
)
_KATAKANA = re.compile(r"[ァ-ヴー]{2,}")
_PLACES = (
    "中国|美国|英国|法国|德国|日本|韩国|印度|俄罗斯|加拿大|澳大利亚|巴西|意大利|西班牙|泰国|越南|新加坡|埃及"
    "|希腊|瑞士|瑞典|荷兰|墨西哥|土耳其|北京|上海|广州|深圳|天津|重庆"
    "|香港|澳门|台湾|台北|南京|杭州|武汉|成都|西安|苏州|青岛|大连|厦门|长沙|沈阳|哈尔滨|昆明|郑州|济南|合肥"
    "|福州|南昌|贵阳|海口|兰州|太原|河北|山西|辽宁|吉林|黑龙江|江苏"
    "|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|内蒙古|广西|西藏|宁夏"
    "|新疆|纽约|伦敦|巴黎|柏林|罗马|莫斯科|华盛顿|维也纳|马德里"
    "|东京|大阪|京都|札幌|名古屋|神戸|横浜|福岡|東京|長江|长江|黄河|珠江|欧洲|亚洲|非洲|北美|南美|欧盟"
)
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田"
    "董袁潘蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹"
    "孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤"
)
_TITLE = r"先生|女士|教授|博士|医生|老师|主席|总统|总理|部长|市长|院士|同志|经理|校长|主任"
_HAN_NAMES = re.compile(
    rf"{_PLACES}|[{_SURNAMES}][\u4e00-\u9fff]{{0,2}}?(?={_TITLE})|(?:(?<![\u4e00-\u9fff])"
    rf"|(?<=[由与和向被对跟给让是]))[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}(?=[于在出生发担任说是获认死创])"
    r"|[\u4e00-\u9fff·]{2,12}·[\u4e00-\u9fff]{1,8}?(?=[在于是的和出说，。])"
)
_HAN_BODIES = re.compile(r"[\u4e00-\u9fff]{2}(?:大学|医院|银行|公司|公园|大桥|大厦|广场|机场|车站|[市省县区镇村州])")


@dataclass(frozen=True, slots=True)
class Name(Placed):
    """A word that looks like a name.

    Attributes:
        text: as it is written.
        start: first character in the normalised sentence.
        sure: whether it is one for certain; the first word of a sentence, and a German noun, may not be.
    """

    text: str
    start: int
    sure: bool


def codes(text: str) -> list[Term]:
    """Addresses, telephone numbers, versions and the like in a normalised text."""
    return [
        Term("code", re.sub(r"[ ()-]", "", match[0].rstrip(".,;:!?")).lower(), match[0].rstrip(".,;:!?"), match.start())
        for match in _CODE.finditer(text)
    ]


def names(text: str, language: str) -> list[Name]:
    """Words in capitals, words that begin with one, katakana, and Chinese names of places, persons and bodies."""
    text = without_eras(text)
    return [*_latin(text, language), *_wide(text, language)]


def _latin(text: str, language: str) -> Iterator[Name]:
    first = True
    for word in _WORD.finditer(text):
        before = text[: word.start()].rstrip()[-1:]
        initial = first or before in ".!?:\"'(。！？"
        first = False
        if not word[0][0].isupper() or word[0].lower() in _SMALL or (len(word[0]) == 1 and word[0] != word[0].upper()):
            continue
        acronym = len(word[0]) > 1 and word[0].isupper()
        yield Name(word[0], word.start(), acronym or (not initial and language != "de"))


def _wide(text: str, language: str) -> Iterator[Name]:
    if language == "ja":
        for word in _KATAKANA.finditer(text):
            yield Name(word[0], word.start(), False)
    if language in ("zh", "ja"):
        for word in _HAN_NAMES.finditer(text):
            yield Name(word[0], word.start(), True)
        for word in _HAN_BODIES.finditer(text):
            yield Name(word[0], word.start(), False)
