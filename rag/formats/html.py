"""HTML: the main text that a reader sees, with its headings and lists, and what <title> and <meta> say of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import lxml.html
from lxml import etree
from lxml.html import HtmlElement

from rag.formats import Extracted
from rag.formats.formulas import formula
from rag.formats.markdown import WIDEST, MarkdownWriter, raised
from rag.formats.text import decode
from rag.types import Limits, Unreadable

_DECLARED = re.compile(
    rb"""<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:+-]+)""", re.IGNORECASE
)
_DECLARED_WITHIN = 1024  # bytes; HTML Living Standard, 4.2.5.4
# Charsets of the Encoding Standard; others, such as UTF-7, browsers do not know and attackers use.
_CHARSETS = re.compile(
    r"utf-8|utf-16(?:-[lb]e)?|ascii|iso8859-\d+|cp(?:125\d|866|874|932|949)|koi8-[ru]|mac-(?:roman|cyrillic)"
    r"|gbk|gb2312|gb18030|big5|big5hkscs|euc_jp|iso2022_jp|shift_jis|euc_kr"
)
_META = {  # name, property or itemprop in lower case -> metadata, the best first
    "title": ("dcterms.title", "dc.title", "og:title"),
    "publisher": ("dcterms.publisher", "dc.publisher", "publisher", "og:site_name"),
    "url": ("url", "dcterms.identifier", "og:url"),
    "published": ("dcterms.issued", "dcterms.date", "dc.date", "article:published_time", "published", "date"),
    "retrieved": ("retrieved",),
    "expires": ("dcterms.valid", "article:expiration_time", "expires"),
    "licence": ("dcterms.license", "dcterms.rights", "dc.rights", "licence", "license"),
    "trust": ("trust",),
    "stance": ("stance",),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CODE = frozenset({"script", "style", "template"})
_FURNITURE = frozenset(
    "head nav aside footer form button select textarea noscript iframe object embed svg canvas audio video "
    "dialog".split()
)
_FURNITURE_ROLES = frozenset(  # what a page without these elements says that its parts are
    "alertdialog banner complementary contentinfo dialog menu menubar navigation search toolbar tooltip".split()
)
_BLOCKS = frozenset(
    "address article blockquote body caption center dd details div dl dt fieldset figcaption figure header hr html "
    "legend main ol p section summary table tbody td tfoot th thead tr ul".split()
)
_STRUCK = frozenset({"del", "s", "strike"})
_SOFT_HYPHEN = "\u00ad"  # where a word may be divided; with it no search finds the word
_READINGS = frozenset({"rp", "rt", "rtc"})
_LAYOUT = frozenset("table ul ol dl pre form h1 h2 h3 h4 h5 h6".split())
_COUNTED = re.compile(r"\W*(?:\d{1,3}[a-z]?|[a-z]|[ivx]{1,5})\W*", re.IGNORECASE)  # what counts paragraphs
_HIDDEN = re.compile(
    r"display:none|visibility:(?:hidden|collapse)|(?:font-size|opacity):0(?:\.0*)?(?:[a-z%;!]|$)"
    r"|text-decoration(?:-line)?:[^;]*line-through"
)


def read_html(data: bytes, limits: Limits) -> list[Extracted]:
    """The text of <main>, else of the only <article>, else of <body>, without navigation and what is hidden."""
    markup = decode(data, _charset(data))
    parser = lxml.html.HTMLParser(no_network=True, huge_tree=False)
    try:
        # A declaration of the charset in the text would be believed; the text is Unicode already.
        tree = lxml.html.document_fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", markup), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError) as exc:
        raise Unreadable(f"is not HTML ({exc})") from exc
    for error in parser.error_log:
        if error.level >= etree.ErrorLevels.FATAL:  # the parser stopped there and left out the rest
            raise Unreadable(f"cannot be read to its end: {error.message} in line {error.line}; simplify it")
    walk = _Walk()
    walk.block(_main(tree))
    return [Extracted(walk.finish(), _metadata(tree), unseen="\n".join(_unseen(tree)))]


def _charset(data: bytes) -> str:
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    if match is None:
        return "utf-8"
    label = match[1].decode("ascii")
    try:
        name = codecs.lookup(label).name
    except LookupError:
        name = ""
    if not _CHARSETS.fullmatch(name):
        raise Unreadable(f"declares the charset {label!r}, which is unknown; save it as UTF-8")
    if name.startswith("utf-16"):
        return "utf-8"  # what was readable as ASCII is not UTF-16; the Encoding Standard says so too
    return "cp1252" if name in ("ascii", "iso8859-1") else name  # as every browser does


def _metadata(tree: HtmlElement) -> dict[str, str]:
    said: dict[str, str] = {}
    for meta in tree.iter("meta"):
        name = (meta.get("name") or meta.get("property") or meta.get("itemprop") or "").strip().lower()
        if value := " ".join((meta.get("content") or "").split()):
            said.setdefault(name, value)
    found = {key: next((said[name] for name in names if name in said), "") for key, names in _META.items()}
    for key, relation in (("url", "canonical"), ("licence", "license")):
        links = (
            link.get("href") or "" for link in tree.iter("link", "a") if (link.get("rel") or "").lower() == relation
        )
        found[key] = next(filter(None, links), "") or found[key]
    title = next(tree.iter("title"), None)
    found["title"] = (" ".join(title.text_content().split()) if title is not None else "") or found["title"]
    return {key: value.replace(_SOFT_HYPHEN, "") for key, value in found.items() if value}


def _main(tree: HtmlElement) -> HtmlElement:
    body = tree.find("body")
    mains = [item for item in tree.iter() if item.tag == "main" or item.get("role") == "main"]
    shown = [item for item in mains if not any(map(_hidden, (item, *item.iterancestors())))]
    articles = [item for item in tree.iter("article") if not any(map(_hidden, (item, *item.iterancestors())))]
    if shown:
        return shown[0]
    if len(articles) == 1:
        return articles[0]
    return tree if body is None else body


def _hidden(element: HtmlElement) -> bool:
    """Whether it is not shown, or struck out."""
    if "mwe-math-mathml" in (element.get("class") or ""):  # MediaWiki shows a picture of it in its place
        return False
    style = re.sub(r"\s+", "", element.get("style") or "").lower()
    if element.tag in _STRUCK or element.get("hidden") is not None:
        return True
    return element.get("aria-hidden") == "true" or bool(_HIDDEN.search(style))


def _shown(element: HtmlElement) -> bool:
    """Whether it is in the text that a reader sees; how the characters below it are read is beside the text."""
    tag = element.tag
    return isinstance(tag, str) and tag not in _CODE and tag not in _READINGS and not _hidden(element)


def _unseen(tree: HtmlElement) -> Iterator[str]:
    """Every text of the page, shown or not, then comments and descriptions; no program and no style sheet."""
    yield " ".join(tree.xpath("//text()[not(parent::script or parent::style)]"))
    yield from (comment.text or "" for comment in tree.iter(etree.Comment))
    yield from tree.xpath("//@alt | //@title | //@aria-label | //@content | //@placeholder")


class _Walk:
    """Goes through the elements and writes their blocks; the parser has bounded their depth."""

    def __init__(self) -> None:
        self._out = MarkdownWriter()
        self._inline: list[str] = []
        self._lists: list[int | None] = []  # the open lists: the number of the last item, None where there are none
        self._marker: str | None = None  # of the item whose first paragraph is not yet written

    def finish(self) -> str:
        self._flush()
        return self._out.text().replace(_SOFT_HYPHEN, "")

    def block(self, element: HtmlElement) -> None:
        """An element that begins and ends a block."""
        self._flush()
        self._children(element)
        self._flush()

    def _element(self, element: HtmlElement) -> None:
        tag = element.tag
        if not _shown(element) or tag in _FURNITURE or element.get("role") in _FURNITURE_ROLES:
            return
        if tag in _HEADINGS:
            self._flush()
            self._out.heading(_HEADINGS[tag], _plain(element))
        elif tag in ("ul", "ol"):
            self._list(element)
        elif tag == "li":
            self._item(element)
        elif tag == "pre":
            self._flush()
            self._out.code(_plain(element))
        elif tag == "table" and _is_data(element):
            self._table(element)
        elif tag == "br":
            self._inline.append("\n")
        elif tag == "math":
            self._say(formula(element, _hidden))
        elif tag == "sup":
            self._say(_plain(element))
        elif tag == "header" and not any(above.tag in ("main", "article") for above in element.iterancestors()):
            return
        elif tag in _BLOCKS:
            self.block(element)
        else:
            self._children(element)

    def _children(self, element: HtmlElement) -> None:
        self._say(element.text)
        for child in element:
            self._element(child)
            self._say(child.tail)

    def _list(self, element: HtmlElement) -> None:
        self._flush()
        self._lists.append(_number(element.get("start"), 1) - 1 if element.tag == "ol" else None)
        self._children(element)
        self._flush()
        self._lists.pop()

    def _item(self, element: HtmlElement) -> None:
        self._flush()
        number = self._lists[-1] if self._lists else None
        if number is not None:
            number = _number(element.get("value"), number + 1)
            self._lists[-1] = number
        self._marker = "-" if number is None else f"{number}."
        self.block(element)
        self._marker = None

    def _table(self, element: HtmlElement) -> None:
        self._flush()
        if (caption := element.find("caption")) is not None and _shown(caption):
            self._out.paragraph(_plain(caption))
        self._out.table([row for row in _rows(element) if row])

    def _say(self, text: str | None) -> None:
        if text:
            self._inline.append(re.sub(r"\s+", " ", text))

    def _flush(self) -> None:
        text = "".join(self._inline).strip()
        self._inline.clear()
        if text and self._marker is not None:
            self._out.item(text, self._marker, len(self._lists) - 1)
            self._marker = None
        elif text:
            self._out.paragraph(text)


def _is_data(table: HtmlElement) -> bool:
    """Whether its cells say something with those beside and above only, and are no frames around parts of the page."""
    if next(table.iter("th"), None) is not None:
        return True
    if table.get("role") in ("presentation", "none") or any(item.tag in _LAYOUT for item in table.iterdescendants()):
        return False
    rows = [[cell.text_content().strip() for cell in row.iterchildren("td")] for row in table.iter("tr")]
    said = [row[1:] if row and _COUNTED.fullmatch(row[0]) else row for row in rows]
    return sum(sum(map(bool, row)) > 1 for row in said) > 1


def _rows(table: HtmlElement) -> Iterator[list[str]]:
    """The cells of each row; one that reaches over several columns or rows stands in each."""
    group = None
    below: dict[int, tuple[int, str]] = {}  # column -> for how many rows more, and the cell
    for row in table.iter("tr"):
        if not all(map(_shown, (row, row.getparent()))):
            continue
        if row.getparent() is not group:
            group, below = row.getparent(), {}
        cells = _reaching(below, 0)
        for cell in row:
            if cell.tag in ("td", "th") and _shown(cell):
                text, rows = _plain(cell), _number(cell.get("rowspan"), 1)
                for _ in range(min(max(_number(cell.get("colspan"), 1), 1), WIDEST)):
                    if rows == 0 or rows > 1:  # 0 is all of the group
                        below[len(cells)] = (rows - 1, text)
                    cells.append(text)
                cells += _reaching(below, len(cells))
        yield cells


def _reaching(below: dict[int, tuple[int, str]], column: int) -> list[str]:
    """The cells of rows above that reach into a row, from a column on as long as there are some."""
    found: list[str] = []
    while column + len(found) in below:
        rows, text = below.pop(column + len(found))
        if rows != 1:
            below[column + len(found)] = (rows - 1, text)
        found.append(text)
    return found


def _plain(element: HtmlElement) -> str:
    """The text of an element, without what is hidden in it; a block inside stands on lines of its own."""
    parts = [element.text or ""]
    for child in element:
        if _shown(child):
            around = "\n" if child.tag in _BLOCKS or child.tag == "li" else ""
            said = formula(child, _hidden) if child.tag == "math" else _plain(child)
            parts.append("\n" if child.tag == "br" else f"{around}{said}{around}")
        parts.append(child.tail or "")
    text = "".join(parts)
    if element.tag == "sup":
        return "" if element.find(".//a") is not None else raised(text)  # a link is to a note
    return text


def _number(said: str | None, otherwise: int) -> int:
    """A number of a list, as an attribute says it."""
    return int(said) if said and re.fullmatch(r"\s*-?\d{1,9}\s*", said) else otherwise
