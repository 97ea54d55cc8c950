"""Words that turn a sentence: one small table for each language.

Patterns are regular expressions without case; in Latin script they stand for whole words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Cues:
    """The words of one language.

    Attributes:
        negation: turn what their clause says into its opposite.
        condition: bind what their sentence says to something else.
        classes: words of one kind that exclude each other, such as quantifiers; of a name, each value's words.
        opposites: pairs of words that exclude each other.
        clause: where a clause ends, beside punctuation.
    """

    negation: str
    condition: str
    classes: dict[str, dict[str, str]]
    opposites: tuple[tuple[str, str], ...]
    clause: str


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, right in (pair.split("/") for pair in text.split()))


_EN = Cues(
    negation=r"not|\w+n['’]t|cannot|never|no|none|nobody|nothing|nowhere|neither|nor|without|hardly|lacks?"
    r"|fail(?:s|ed)? to|(?:refus|declin)(?:e|es|ed|ing) to|barely|scarcely|far from being|exempt from"
    r"|free (?:of|from)(?! (?:charge|cost))|(?:do|does|did|is|are|was|were|ca|should|would|could|has|had)nt",
    condition=r"unless|except|excluding|only if|(?<!even )if|provided that|as long as",
    classes={
        "quantifier": {
            "all": r"all|every|each(?! other)|always|everyone|everybody|entirely|completely",
            "most": r"(?<!the )(?<!at )most|for the most part|usually|mostly|generally|majority",
            "some": r"some(?! \d{3})|sometimes|several|certain|occasionally|a few",
            "many": "many|often|frequently|quite a few",
            "few": "few|rarely|seldom|minority|only a few|very few",
        },
        "restriction": {"only": "only|solely|exclusively"},
        "modality": {
            "must": "must|have to|has to|required|requires|mandatory|shall|obliged|compulsory",
            "may": "may|might|can|could|optional|possibly|allowed|permitted",
            "should": "should|ought to|recommended|advised",
        },
        "bound": {
            "least": "at least|no less than|minimum|not less than|more than|or more|or longer|or older|over|above"
            "|exceeding|exceeds?",
            "most": "at most|no more than|maximum|up to|not more than|less than|or less|or fewer|or younger|under|below"
            "|fewer than",
        },
    },
    opposites=_pairs(
        r"increas\w*|rais\w*|rises?|rose|grow\w*|grew/decreas\w*|lower(?:s|ed|ing)?|reduc\w*|falls?|fell|shrink\w*|declin\w*"
        r" before|prior/after"
        r" allow\w*|permit\w*|legal|lawful|permitted/forbid\w*|prohibit\w*|bann?\w*|illegal|unlawful|forbidden"
        r" more/less|fewer higher/lower safe|harmless/unsafe|dangerous|harmful possible/impossible likely/unlikely"
        r" warm\w*|hot/cold|cool\w* open\w*/clos\w*|shut\w*"
        r" begin\w*|start\w*|began/end|ends|ended|ending|stop\w*|finish\w* caus\w*/prevent\w*|protect\w*"
        r" (?:bind|valid)\w*/void weekdays?/weekends?"
        r" annual(?:ly)?|yearly/(?:bi|semi-?)annual(?:ly)?|biennial(?:ly)?"
        r" last\s(?:week|month|year)/next\s(?:week|month|year) improv\w*|better/worsen\w*|worse"
        r" gain\w*|win|wins|won/los\w* win|wins|won/lost"
        r" accept\w*|approv\w*|granted/reject\w*|refus\w*|den(?:y|ies|ied) includ\w*/exclud\w*"
        r" effective/ineffective empty/full first/last north\w*/south\w* east\w*/west\w* left/right"
        r" male|men|man|boys?/female|women|woman|girls? adults?/child|children|infants?|babies hard\w*/soft\w*"
        r" fast\w*|quick\w*/slow\w* able/unable useful/useless harmless/harmful careful\w*/careless\w*"
        r" known/unknown enough|sufficient/insufficient complete/incomplete visible/invisible"
        r" doubl\w*/tripl\w*|halv\w* bans|banned|banning/lift\w*\s(?:the|its|a)\sban young\w*/old\w*"
        r" early|earlier|earliest/late|later|latest above/below over/under inside/outside true/false"
        r" success\w*|succeed\w*/fail\w* protect\w*/endanger\w* inhal\w*/exhal\w* import\w*/export\w*"
        r" buy\w*|bought/sell\w*|sold free/paid public/private strong\w*/weak\w* positive/negative minimum/maximum"
        r" least/most same/different day/night sunrise|dawn/sunset|dusk morning/evening"
        r" voluntary|optional/mandatory|compulsory with/without rich\w*/poor\w* long\w*/short\w*"
        r" large\w*|big\w*/small\w* wet/dry start\w*/stop\w* arriv\w*/depart\w*|leav\w* love\w*/hate\w* up/down"
    ),
    clause=r"and|but|or|while|whereas|although|though|because|so|when|which|who|that",
)
_ZH = Cues(
    negation=r"不(?![仅但同过断久足管论])|没有?|(?<!除)非(?![常洲])|无(?![论线疑])|未(?![来])|勿|莫"
    r"|别(?![人的])(?<!特别)(?<!区别)(?<!级别)"
    r"|禁止|严禁|切忌|拒绝|避免|免[收交除费]|從未|沒有?|無|未曾",
    condition=r"除非|除了|如果|假如|若|只要|只有|除外|前提",
    classes={
        "quantifier": {
            "all": "所有|全部|一切|每个|每位|每名|总是|都|始终|完全|任何",
            "most": "大多数?|多数|大部分|通常|一般",
            "some": "有些|一些|部分|有时|某些|若干",
            "many": "许多|很多|经常|常常|往往",
            "few": "少数|极少|很少|罕见|个别",
        },
        "restriction": {"only": "仅(?!仅)|只(?![有要是])|唯一|唯有|只有|仅仅"},
        "modality": {
            "must": "必须|必需|务必|一定要|需要|应当",
            "may": "可以|可能|能够|也许|或许|允许|准许",
            "should": "应该|建议|推荐|最好",
        },
        "bound": {
            "least": "至少|不少于|最少|最低|超过|以上|高于|多于|不低于",
            "most": "至多|最多|不超过|最高|以下|以内|少于|低于|不到",
        },
    },
    opposites=_pairs(
        "增加|上升|提高|增长|上涨|升高/减少|下降|降低|下跌|缩小 之前|以前|前/之后|以后|后"
        " 允许|准许|可以|合法/禁止|不得|不准|违法|非法 多于/少于 高于/低于 安全/危险 有害/无害 可能/不可能 热/冷"
        " 开始/结束|停止 开放|打开/关闭 导致|引起/预防|防止 改善|好转/恶化 赢|胜/输|败 可/忌(?!讳)|禁[用服]"
        " 去年/明年 工作日/周末 接受|批准|同意/拒绝|驳回|否决 包括|包含/不包括|排除 有效/无效 第一|首/最后|末"
        " 东/西 南/北 左/右 男/女 成人|成年人/儿童|小孩|婴儿 硬/软 快/慢 早/晚 以上/以下 内/外 真/假 成功/失败"
        " 进口/出口 买/卖 免费/收费 公立|公共/私立|私人 强/弱 阳性/阴性 最低|最少/最高|最多 至少/至多|最多"
        " 相同/不同 日出/日落 白天/夜间|晚上 早上|早晨|上午/晚上|下午 自愿/强制 富/穷 长/短 大/小 湿/干"
        " 饭前|餐前/饭后|餐后 冷水/热水 空腹/饱腹 更多/更少 更高/更低 到达/离开 高血压/低血压"
    ),
    clause="但是?|而|因为|所以|如果|虽然|并且|以及|和|或",
)
_DE = Cues(
    negation="nicht|nie|niemals|kein|keine|keinen|keiner|keinem|keines|nichts|niemand|ohne|weder|noch|verboten"
    "|untersagt|kaum|keinesfalls|keineswegs|nirgends|zu unterlassen",
    condition="außer|sofern|falls|wenn|solange|es sei denn|nur wenn",
    classes={
        "quantifier": {
            "all": "alle|allen|aller|jede|jeder|jedes|jeden|immer|stets|sämtliche",
            "most": "die meisten|den meisten|meist|meistens|üblicherweise|gewöhnlich",
            "some": "einige|einigen|manche|manchmal|gelegentlich",
            "many": "viele|vielen|oft|häufig",
            "few": "wenige|wenigen|selten",
        },
        "restriction": {"only": "nur|ausschließlich|lediglich"},
        "modality": {
            "must": "muss|müssen|verpflichtet|vorgeschrieben|erforderlich",
            "may": "darf|dürfen|kann|können|könnte|könnten|möglich|erlaubt|zulässig",
            "should": "soll|sollen|sollte|sollten|empfohlen",
        },
        "bound": {
            "least": "mindestens|wenigstens|mehr als|über|minimum",
            "most": "höchstens|maximal|weniger als|bis zu|unter|maximum",
        },
    },
    opposites=_pairs(
        r"erhöh\w*|steig\w*|stieg\w*|wachs\w*|wächst|zunehm\w*/senk\w*|sink\w*|sank\w*|verringer\w*|abnehm\w*|fall\w*|fällt"
        r" vor/nach erlaubt|zulässig|legal/verboten|unzulässig|illegal|untersagt mehr/weniger höher\w*/niedriger\w*"
        r" sicher/gefährlich|unsicher möglich/unmöglich warm\w*|heiß\w*/kalt\w*"
        r" öffn\w*|offen/schließ\w*|geschlossen beginn\w*|begann/end\w* verursach\w*/verhinder\w*|schütz\w*"
        r" besser\w*/schlechter\w* wirksam/unwirksam nord\w*/süd\w* ost\w*/west\w* erwachsene\w*/kind\w*"
        r" schnell\w*/langsam\w* jung\w*/alt\w* früh\w*/spät\w* mit/ohne mindestens/höchstens morgens/abends"
        r" täglich/wöchentlich werktags/wochenend\w*"
        r" letzt\w*\s(?:jahr|monat|woche)\w*/nächst\w*\s(?:jahr|monat|woche)\w*"
    ),
    clause="und|oder|aber|sondern|weil|da|wenn|dass|während|obwohl",
)
_FR = Cues(
    negation=r"ne|n['’]\w+|pas|jamais|aucun|aucune|rien|personne|sans|ni|interdit|interdite|interdits",
    condition="sauf|excepté|si|à condition|à moins|tant que|uniquement si",
    classes={
        "quantifier": {
            "all": "tous|toutes|tout|toute|chaque|toujours",
            "most": "la plupart|généralement|habituellement",
            "some": "certains|certaines|quelques|parfois",
            "many": "beaucoup|nombreux|nombreuses|souvent",
            "few": "peu|rarement",
        },
        "restriction": {"only": "seulement|uniquement|exclusivement|seul|seule|seuls|seules"},
        "modality": {
            "must": "doit|doivent|devez|obligatoire|faut|nécessaire",
            "may": "peut|peuvent|pouvez|pourrait|possible|autorisé|autorisée|permis|permise",
            "should": "devrait|devraient|devriez|recommandé",
        },
        "bound": {
            "least": "au moins|plus de|au minimum|minimum",
            "most": "au plus|moins de|au maximum|jusqu['’]à|maximum",
        },
    },
    opposites=_pairs(
        r"augment\w*|accroî\w*|hausse/diminu\w*|rédui\w*|baiss\w* avant/après"
        r" autoris\w*|permi[st]\w*|permet\w*|légal\w*/interdi\w*|illégal\w* plus/moins supérieur\w*/inférieur\w*"
        r" sûr\w*/dangereu\w* possible/impossible chaud\w*/froid\w* ouvr\w*|ouvert\w*/ferm\w*"
        r" commenc\w*|début\w*/fin|finit|termin\w*|arrêt\w*"
        r" provoqu\w*|caus\w*/prévien\w*|prévent\w*|empêch\w*|protèg\w* mieux|amélior\w*/pire|aggrav\w*"
        r" efficace\w*/inefficace\w* nord/sud est/ouest adultes?/enfants? rapide\w*/lent\w* jeune\w*/âgé\w*|vieux"
        r" tôt/tard avec/sans matin/soir"
    ),
    clause="et|ou|mais|car|parce|que|qui|si|lorsque|quand|tandis",
)
_ES = Cues(
    negation="no|nunca|jamás|ningún|ninguna|ninguno|nada|nadie|sin|ni|tampoco|prohibido|prohibida|prohíbe",
    condition="salvo|excepto|si|a menos que|siempre que|solo si|sólo si",
    classes={
        "quantifier": {
            "all": "todos|todas|todo|toda|cada|siempre",
            "most": "la mayoría|generalmente|normalmente",
            "some": "algunos|algunas|algún|alguna|a veces",
            "many": "muchos|muchas|a menudo|frecuentemente",
            "few": "pocos|pocas|rara vez|raramente",
        },
        "restriction": {"only": "solo|sólo|solamente|únicamente|exclusivamente"},
        "modality": {
            "must": "debe|deben|obligatorio|obligatoria|necesario|hay que",
            "may": "puede|pueden|podría|podrían|posible|permitido|permitida|permite",
            "should": "debería|deberían|recomienda|aconseja",
        },
        "bound": {
            "least": "al menos|como mínimo|por lo menos|más de|mínimo|mínima",
            "most": "como máximo|a lo sumo|menos de|hasta|máximo|máxima",
        },
    },
    opposites=_pairs(
        r"aument\w*|sub(?:e|en|ió|ir)|crec\w*/disminu\w*|reduc\w*|redujo|baj(?:a|an|ó|ar) antes/después"
        r" permit\w*|legal\w*/prohib\w*|prohíb\w*|ilegal\w* más/menos superior\w*/inferior\w* mayor\w*/menor\w*"
        r" segur\w*/peligros\w*|insegur\w* posible/imposible caliente\w*/frí\w* abr\w*|abiert\w*/cierr\w*|cerr\w*"
        r" comienz\w*|empieza\w*|inici\w*/termin\w*|acab\w* caus\w*|provoc\w*/previen\w*|protege\w*|evit\w*"
        r" mejor\w*/peor\w*|empeor\w* eficaz/ineficaz norte/sur este/oeste adultos?/niños? rápid\w*/lent\w*"
        r" joven\w*/viej\w* temprano/tarde con/sin mañana/noche"
    ),
    clause="y|e|o|pero|sino|porque|que|si|cuando|mientras|aunque",
)
_JA = Cues(
    negation="ない|ません|なかった|ず(?=[、。に])|禁止|禁じ|無し|なし|ぬ(?=[。])",
    condition="ただし|場合を除|限り|もし|以外|を除いて|なければ",
    classes={
        "quantifier": {
            "all": "すべて|全て|全員|いつも|常に|必ず",
            "most": "ほとんど|大部分|大半|通常|たいてい",
            "some": "一部|いくつか|時々|ときどき",
            "many": "多く|しばしば|よく",
            "few": "少数|まれ|めったに",
        },
        "restriction": {"only": "だけ|のみ|しか"},
        "modality": {
            "must": "なければなりません|なければならない|必要が|義務",
            "may": "てもよい|てもいい|かもしれ|できます|できる|可能",
            "should": "べき|推奨|勧め",
        },
        "bound": {"least": "少なくとも|以上|最低|超え", "most": "最大|以下|以内|未満|まで|多くても"},
    },
    opposites=_pairs(
        "増加|増え|増や|上昇|上が/減少|減り|減る|減ら|低下|下が 前/後 許可|許され|合法/禁止|禁じ|違法 安全/危険"
        " 可能/不可能 熱|暑/冷|寒 開始|始ま|始め/終了|終わ 開/閉 有効/無効 北/南 東/西 右/左"
        " 大人|成人/子ども|子供|小児 速/遅 早/遅 以上/以下|未満 朝/夜 食前/食後 高/低 多/少 長/短 原因/予防"
    ),
    clause="が、|ので|から|けれど|たり",
)
CUES = {"en": _EN, "zh": _ZH, "de": _DE, "fr": _FR, "es": _ES, "ja": _JA}


@cache
def compiled(pattern: str, language: str) -> re.Pattern[str]:
    """A table's pattern, for whole words where a language writes them apart."""
    return re.compile(pattern if language in ("zh", "ja") else rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)
