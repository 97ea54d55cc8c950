"""What around a clause can turn it: other clauses of its sentence, the headings above it."""

from __future__ import annotations

import re

from rag.facts.cues import CUES

# What, elsewhere in a sentence, can turn one of its clauses: negations, conditions, reports, questions.
_REPORTS = (
    r"claim\w*|think(?:s|ing)?|thought|opinions?|debunk\w*|myths?|alleg\w*|believ\w*|suppos\w*|false\w*|wrong\w*|untrue|said|says?|argu\w*"
    r"|only|avoid|but|however|though|although|instead|forb[ai]d\w*|prohibit\w*|bann\w*|bans?|illegal\w*|unlawful\w*|contraindicat\w*"
    r"|refrain\w*|don['’]?ts|mistakes?|errors?|misconcept\w*|rumou?rs?|hoax\w*|critics?|according to|den(?:y|ies|ied)"
    r"|refus\w*|reject\w*|refut\w*|outdated|formerly|dangerous|harmful|stop|stay away|évite[rz]?|à tort|vermeid\w*"
    r"|evit\w*|angeblich|behaupt\w*|falsch|nur|aber|jedoch|prétend\w*|faux|fausse|mais|seulement|supuest\w*|afirma\w*|falso"
    r"|pero|solo|sólo"
)
_REPORTS_WIDE = "据说|声称|认为|谣言|误区|错误|但|然而|不过|只|仅|と言|という|しかし|ただし|だけ|誤"


def _altering() -> str:
    latin = "|".join(f"{CUES[code].negation}|{CUES[code].condition}" for code in ("en", "de", "fr", "es"))
    wide = "|".join(f"{CUES[code].negation}|{CUES[code].condition}" for code in ("zh", "ja"))
    return rf"(?<!\w)(?:{latin}|{_REPORTS})(?!\w)|{wide}|{_REPORTS_WIDE}|\?"


ALTERS = re.compile(_altering(), re.IGNORECASE)

# What else can bind the other clauses of a sentence to something; above a list it only says when.
_CLAUSE_END = r"(?=\s*(?:[.;!?]|$))"
BINDS = re.compile(
    r"(?<!\w)(?:until|till|before|when|whenever|(?<!the )first(?=\s*(?:[.,;:!)]|$))|(?:^|(?<=; ))first"
    rf"|beforehand|prior(?! of)|previously{_CLAUSE_END}|in advance"
    rf"|zuerst|zunächst|vorher|zuvor|bevor|erst(?:{_CLAUSE_END}|(?= (?:einen|den|Ihren) ))|vorab|sobald"
    r"|d['’]abord|(?<!['’])avant(?!-|\s\d)|(?:au )?préalable(?:ment)?|dès que"
    rf"|primero|antes(?:{_CLAUSE_END}|(?= (?:de|que|a su) (?!\d)))|previamente|previo|previa)(?!\w)"
    r"|(?<![首率优優祖领領原])先(?:(?=[把将用洗服吃做问看咨确])|(?![生进進天锋鋒例秦])[^。；;]{1,12}[再后])|事先|之前|事前"
    r"|(?<!の)先に|(?<![眼駅門店手年])(?<!目の)前に(?![進出])|(?<![飲休読済進望含住生産噛悩頼込組])まず(?![いく])",
    re.IGNORECASE,
)

# What a sentence calls false, such as the heading above it.
DENIES = re.compile(
    r"(?<!\w)(?:false|wrong|myths?|untrue|incorrect|not true|no truth|misconceptions?|debunked|hoax|falsch|mythos"
    r"|irrtum|stimmt nicht|faux|mythe|falso|mito)(?!\w)|误区|谣言|错误|不实|誤|デマ",
    re.IGNORECASE,
)


def _beliefs(lead: str, myths: str, misconceptions: str, after: str) -> str:
    """Headings of false beliefs: "myths" alone, or of what they are known to be, since "Greek myths" are tales."""
    word = r"(?!(?:not|no|truth|of|about|on|behind|über|von|der|zu[mr]?|sur|des?|du|sobre|del?) )\w[^\s?]* "
    return (
        rf"(?:(?:(?:{lead}),? ){{0,4}}(?:{myths})|(?:{word}){{0,4}}(?:{misconceptions}))(?:,? (?:{after})\b[^?]*)?"
        rf"|(?:{word}){{0,4}}(?:{myths}),? (?:{after})\b[^?]*"
    )


_FALSE_BELIEFS = (
    _beliefs(
        r"the|some|other|most|top|\d+|two|three|five|ten|seven|and|facts?|vs\.?|common|popular|widespread|persistent"
        r"|frequent|typical|biggest|old|dangerous|vaccin(?:es?|ation):?|immuni[sz]ation|covid(?:-19)?|flu|health|medical"
        r"|medicines?|medication|drugs?|diet(?:ary)?|nutrition(?:al)?|food|sugar|vitamin|weight|sleep|cancer|diabetes"
        r"|pregnancy|contraception|hiv|exercise|fitness|alcohol|smoking|money|tax|investment|investing|insurance"
        r"|pension|climate|change",
        "myths?|rumou?rs",
        "misconceptions?|falsehoods",
        r"about|on|around|regarding|concerning|surrounding|debunked|busted|explained|vs|versus"
        r"|in (?:medicine|nutrition|health\w*|science)"
        r"|(?:and|&) (?:the |other )?(?:facts?|truths?|reality|realities|myths|misconceptions|mistakes|errors)",
    ),
    _beliefs(
        r"die|\d+|zehn|fünf|häufige|häufigsten|(?:weit )?verbreitete|gängige|populäre|hartnäckige|typische|fakten|und",
        r"(?:(?:impf|corona|covid|gesundheits|medizin|ernährungs|diät|fitness|schlaf|krebs|schwangerschafts|steuer|geld"
        r"|finanz|klima)-?)?mythen|mythos",
        r"\w*irrtümer|falsche vorstellungen",
        r"über|rund um|zu[mr]?|bei|und (?:die )?(?:fakten|wahrheit(?:en)?|tatsachen|realität|mythen|irrtümer)",
    ),
    _beliefs(
        r"les|\d+|dix|cinq|principaux|faits|et",
        r"mythes(?: (?:courants|répandus|fréquents|tenaces|vaccinaux|alimentaires|nutritionnels))?",
        r"idées (?:reçues|fausses)",
        r"sur|autour|à propos|au sujet|concernant|et (?:les? |la )?(?:réalités?|vérités?|faits|mythes|idées reçues)",
    ),
    _beliefs(
        r"los|\d+|diez|cinco|principales|falsos|hechos|y",
        r"mitos(?: (?:comunes|frecuentes|populares|falsos|alimentarios|nutricionales|médicos))?",
        r"(?:creencias|ideas) (?:falsas|erróneas)",
        r"sobre|acerca|en torno|y (?:la |las |los )?(?:realidad(?:es)?|verdad(?:es)?|hechos|mitos|creencias falsas)",
    ),
    r"(?:ال)?خرافات(?: (?:ال)?شائعة)?(?: (?:حول|عن)\b[^?]*)?|[^?]*(?:مفاهيم خاطئة|المفاهيم الخاطئة)[^?]*",
    r"(?:आम |प्रचलित )?(?:मिथक|भ्रांतियाँ)(?: और (?:तथ्य|सच))?",
    r"(?!防止|打击|抵制|治理|应对|识别|破除|反对)[^?]*(?:误区|谣言|誤區|謠言|誤解|迷信|デマ)"
    r"(?:[一二三四五六七八九十\d]+(?::[^?]*)?|[与與和及と](?:事实|事實|事実|真相|真実)[^?]*)?",
)

# Mistakes with their remedies, which may be followed, stand under other headings than mistakes alone.
_MISTAKES = (
    r"(?![^?]* (?:and (?:how|their|the|solutions|fixes|corrections)|und (?:ihre|deren|wie|lösungen)"
    r"|et (?:solutions|leurs?|comment)|y (?:soluciones|sus?|cómo))\b)"
    r"(?:(?:common|frequent|typical) (?:mistakes (?:when|while|in|with|during|by|people|patients|parents|you)"
    r"|errors (?:when|while|people|patients|parents|you))|häufige fehler (?:beim?|während)"
    r"|erreurs (?:fréquentes|courantes) (?:lors|quand|pendant|en cas|chez)"
    r"|errores (?:comunes|frecuentes) (?:al|cuando|durante|en caso))\b[^?]*"
)

# Headings that turn all below them. A question is none: what stands below it is its answer.
TURNING_HEADING = re.compile(
    rf"(?![^?؟]*[?؟])(?:{'|'.join(_FALSE_BELIEFS)}|{_MISTAKES}"
    r"|(?:(?:common|popular|frequent|typical|widespread) )?(?:mistakes|errors|don['’]?ts)"
    r"|[^?]*\b(?:mistakes|errors|things|foods) to avoid\b[^?]*"
    r"|(?:what|when|how|who|where|things|foods|medicines)\b[^?]*\b(?:not|never|avoid)\b[^?]*"
    r"|(?:never|avoid|not|do not|don['’]t)\b[^?]*"
    r"|(?:superseded|repealed|(?:outdated|obsolete) (?:rules?|advice|guidance|guidelines?|recommendations?))\b[^?]*"
    r"|debunked|fake news|bad examples?|(?:aufgehobene|veraltete|überholte) (?:regel|empfehlung|vorschrift)\w*\b[^?]*"
    r"|(?:häufige )?fehler|(?:was|wann|wer) [^?]*\bnicht\b[^?]*|(?:nicht|nie|niemals)\b[^?]*"
    r"|erreurs(?: fréquentes| courantes)?|(?:[^?]*\b(?:erreurs|choses|gestes|aliments|médicaments) )?à éviter"
    r"|ce qu['’]il ne faut pas\b[^?]*|(?:jamais|ne pas)\b[^?]*"
    r"|errores(?: comunes| frecuentes)?|(?:qué|cuándo|lo que) no\b[^?]*|qué evitar|(?:nunca|no)\b[^?]*"
    r"|(?:常见)?错误|禁忌|[^?]*(?:不要|不能|不宜|不可|不得|避免|禁止)[^?]*|[^?]*てはいけない[^?]*)",
    re.IGNORECASE,
)
