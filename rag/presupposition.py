"""What a question takes for granted, as statements: "Why does X cause Y?" takes for granted that X causes Y.

Patterns for English, and the commonest forms in Chinese and German. A question that only asks ("Does X cause Y?")
takes nothing for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag.facts.language import language_of
from rag.facts.words import words
from rag.segments import segments

MAX_CLAIMS = 6  # of one question
_LONGEST = 400  # characters of a claim
_CONTENT = 2  # content words that a claim needs to say something

_BE, _DO = "is|are|was|were", "does|do|did"
_MODAL = "has|have|had|can|could|should|must|will|would|shall|may|might"
_AUX = rf"(?:{_BE}|{_DO}|{_MODAL})"
_LONG = {"UK": "United Kingdom", "US": "United States", "USA": "United States", "EU": "European Union"}
_ABROAD = re.compile(r"\b(?:UK|U\.K\.|USA|U\.S\.A\.|US|U\.S\.|EU)(?!\w)|(?<=\b(?:in|of) the )(?:uk|us|usa|eu)\b")
_NOT = rf"(?P<aux>{_AUX})(?P<neg>n['’]?t\b|\s+not\b)?|(?P<cannot>cannot|can['’]?t|won['’]?t)"
_SAYS = (
    rf"(?:{_BE}|{_DO}|{_MODAL}|causes?|cures?|kills?|treats?|works?|contains?|means?|makes?|needs?|says?|said"
    r"|[a-z]{3,}(?:ed|[^s]s))"
)
_PERSON = re.compile(r"(?:i|i['’](?:m|ve|d|ll)|im|ive|my|we|we['’]re|our|you|your|me|us)\b", re.IGNORECASE)
_LED = r"since|because|given(?: the fact)?(?: that)?|seeing(?: that| as)|considering(?: that)?|now that|as|although"
_LED += r"|even though|though|knowing(?: that)?"
_ASKING = (
    r"(?:so|then|and)?\s*(?:why|how|what|when|where|which|who|whom|is|are|can|could|should|do|does|did|must|may|will)\b"
)
_LEAD = re.compile(
    rf"(?:so|but|and|well|ok|okay)?[, ]*(?:{_LED})\s+(?P<claim>[^?]+?),\s*(?P<rest>{_ASKING}.+|[^,]+$)", re.IGNORECASE
)
_TRAIL = re.compile(
    r"(?P<rest>.+?),?\s(?:since|because|given that|seeing (?:that|as)|considering(?: that)?|now that|even though"
    r"|although|though)\s(?P<claim>[^?,]+)\??",
    re.IGNORECASE,
)
_WHEN = re.compile(r"why\b.+?\s(?:when|if|while)\s(?P<claim>[^?,]+)\??", re.IGNORECASE)
_SO = re.compile(
    r"(?P<claim>[^?]+?)(?:,|\s-|;)\s*(?:so|then|and)?\s*(?P<rest>(?:why|how|what|when|where|which|who|can|could|should|do"
    r"|does|is|are|will|may|must)\b.+\?)",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"(?P<claim>.+?),?\s(?:right|correct|true|yes|no|(?:is|are|was|were|does|do|did|has|have|can|will)n['’]?t"
    r" (?:it|they|he|she|that|there))\s*\?",
    re.IGNORECASE,
)
_THAT = re.compile(
    r"\b(?:the fact that|everyone knows(?: that)?|everybody knows(?: that)?|it is (?:known|true|clear|proven) that"
    r"|(?:i|we) (?:know|heard|read|learned|learnt|understand|saw|think|thought|believe|am told|was told|were told)"
    r"(?: somewhere| online| recently)?(?: that)?|(?:explain"
    r"|tell me|understand|show|wonder(?:ing)?|know|reason)\s(?:why|how come))\s(?P<claim>[^?,.;]+)",
    re.IGNORECASE,
)
_COME = re.compile(r"(?:how come|why is it that)\s(?P<claim>[^?]+)", re.IGNORECASE)
_REASON = re.compile(
    r"what (?:is|was|are|were|['’]s) the (?:main |real |exact )?(?:reasons?|causes?|explanations?|evidence|proof)"
    r" (?:that|why|for why)\s(?P<claim>[^?]+)",
    re.IGNORECASE,
)
_MAKES = re.compile(r"what (?:makes|made|causes|caused)\s(?P<claim>[^?]+)", re.IGNORECASE)
_WHO = re.compile(
    rf"(?:who|(?:which|what) (?!{_AUX}\b)\w+)\s(?P<claim>(?!(?:{_AUX}|the|an?|do|does|did)\b)"
    r"[a-z]+(?:ed|t|e|n|d|w|k|g|s)\s[^?]+)",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"(?:^|[,;:]\s*|\b(?:so|and|but|then|exactly)\s)(?P<how>(?:exactly\s)?"
    r"(?:why|whyever|when|since when|where|how(?: exactly)?"
    r"|(?:in|by) (?:what|which) (?:year|month|country|city|way|case)|(?:at|from) what age|what year"
    r"|how (?:long|quickly|fast|often|well|badly|far|strongly)|for how long|until when))\s"
    rf"(?:{_NOT})\s(?P<rest>[^?]+)",
    re.IGNORECASE,
)
_STOPPED = re.compile(
    r"(?P<who>.+?)\s(?:finally |suddenly |ever )?(?:stop|stopped|quit|cease|ceased|keep|kept|continue|continued|start"
    r"|started|begin|began|resume|resumed)\s(?P<what>(?:to )?[a-z]+(?:ing\b)?.*)",
    re.IGNORECASE,
)
_WHICH = re.compile(
    rf"(?P<what>(?:\b(?:the|an?|his|her|its|their)\s)?(?:[\w'’-]+\s){{0,2}}[\w'’-]+),\s*(?:which|who)\s"
    rf"(?P<says>{_SAYS}\b[^,?]+)",
    re.IGNORECASE,
)
_IS_A = re.compile(
    r"(?P<what>(?:\b(?:the|an?)\s)?(?:[A-Z][\w'’-]+\s){0,3}[\w'’-]+),\s(?P<says>(?:an?|the)\s[^,?]{3,80}),",
    re.IGNORECASE,
)
_BEING = re.compile(r"being\s(?P<says>(?:an?|the|so)\s[^,?]+),\s(?P<rest>.+)", re.IGNORECASE)
_QUESTION = re.compile(
    rf"(?:why|when|where|how|who|whom|whose|what|which|{_AUX}(?:n['’]?t)?|please|tell|explain|give|list|name|show|if|in"
    r" (?:what|which)|at what|for how|since when|until when|by (?:what|which))\b",
    re.IGNORECASE,
)
_FINITE = re.compile(rf"\b{_SAYS}\b|n['’]t\b|\bcannot\b", re.IGNORECASE)
_FIRST = re.compile(r"(?:a|an|the|not|no|so|too|very|only|still|always|never|ever|often|more|most|less|quite|such)$")
_PREPOSITION = re.compile(r"(?:of|for|from|in|on|at|with|without|between|under|over|by|and|or|to|after|before)$")
_STATE = re.compile(
    r"\d[\d.,]*|[a-z]{3,}(?:ed|ous|ful|able|ible|less|ly)|safe|legal|illegal|short|tall|flat|round|good|bad|better"
    r"|worse|due|visible|high|low|free|enough|true|false|fake|called|made"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|hundreds?|thousands?|half|twice"
    r"|known|taken|given|built|written|put|sold|fixed"
)
_VERB = frozenset(
    "be become begin belong block blow break bring build buy call cancel carry cause change charge claim come contain"
    " continue control cost cover create cure cut deny depend destroy die discover do double drop earn end expire fail"
    " fall find fly get give go grow happen harm have heal help hide hold hurt improve increase invent invest keep kill"
    " know land last lead learn leave let lie live look lose lower make mean move must need offer orbit own pay prevent"
    " produce protect prove provide raise reach recommend reduce remove replace require return rise rule run save say"
    " see sell send show shrink sign sink start stay stop strengthen support surrender survive take tell travel treat"
    " turn use visit wait wake walk want watch weaken weigh win work worsen write advise allow ask ban drive drink face"
    " forbid guarantee report resist impair purchase speed slow count publish store wear arise agree hang wave".split()
)

_ZH = re.compile(
    r"(?:既然|因为|由于)(?P<since>[^，,。？?]+)[，,]|(?P<before>[^，,。？?]*?)(?:为什么|为何|怎么会|何以)(?P<why>[^，,。？?]+)"
)
_DE = re.compile(r"(?:warum|wieso|weshalb|wann|seit wann|weil|obwohl|nachdem|da\s(?!vinci))\b", re.IGNORECASE)
_DE_LED = re.compile(r"(?:da|weil|obwohl|nachdem)\s(?P<claim>[^,?]+),\s(?P<rest>.+)", re.IGNORECASE)
_DE_TRAIL = re.compile(r".+,\s(?:da|weil|obwohl|wenn doch|wo doch)\s(?P<claim>[^,?]+)\??", re.IGNORECASE)
_DE_ASKS = re.compile(
    r"(?:warum|wieso|weshalb|wann|seit wann|in welchem jahr|wie(?: lange| oft| schnell)?)\s"
    r"(?P<verb>\w+)\s(?P<rest>[^?]+)",
    re.IGNORECASE,
)
_DE_PERSON = re.compile(r"(?:ich|wir|du|ihr|mein\w*|uns\w*)\b", re.IGNORECASE)


def presuppositions(question: str) -> list[str]:
    """The statements that a question takes for granted, in its own words, the plainest first; often none."""
    found: dict[str, str] = {}
    for segment in segments(question):
        sentence = " ".join(question[segment.start : segment.end].split())
        language = "de" if _DE.match(sentence) else language_of(sentence)
        claims = _FORMS.get(language, _english)(sentence)
        for claim in claims:
            claim = _ABROAD.sub(lambda short: _LONG[short[0].replace(".", "").upper()], claim)
            claim = claim.strip(' \t,;:.!?，。？！-"“”')
            if len(claim) <= _LONGEST and len(words(claim)) >= _CONTENT:
                found.setdefault(claim.casefold(), claim)
    return list(found.values())[:MAX_CLAIMS]


def _english(sentence: str) -> Iterator[str]:
    if lead := _LEAD.match(sentence):
        if _stated(lead["claim"]):
            yield lead["claim"]
        yield from _english(lead["rest"])
        return
    if being := _BEING.match(sentence):
        yield from _english(being["rest"])
        return
    for pattern in (_THAT, _COME, _REASON, _MAKES, _WHO):
        if match := (pattern.search if pattern is _THAT else pattern.match)(sentence):
            claim = next(filter(None, match.groups()))
            yield from _cut(claim) if not _PERSON.match(claim) else ()
    if (when := _WHEN.match(sentence)) and _stated(when["claim"]):
        yield when["claim"]
    if (trail := _TRAIL.match(sentence)) and _stated(trail["claim"]):
        yield trail["claim"]
        sentence = trail["rest"] + "?"
    yield from _asked(sentence)
    for match in _WHICH.finditer(sentence):
        shown = re.match(r"(?:means?|shows?|proves?|suggests?) that\s(.+)", match["says"], re.IGNORECASE)
        yield shown[1] if shown else f"{_noun(match['what'])} {match['says']}"
    for match in _IS_A.finditer(sentence):
        yield f"{_noun(match['what'])} is {match['says']}"
    if _QUESTION.match(sentence):
        return
    for pattern in (_TAG, _SO):
        if (said := pattern.match(sentence)) and _stated(said["claim"]):
            yield said["claim"]
            return
    if "?" not in sentence and _stated(sentence) and re.search(rf"\b{_AUX}\b|n['’]t\b|\bcannot\b", sentence):
        yield sentence


def _asked(sentence: str) -> Iterator[str]:
    """What "why", "when" and the like ask more about."""
    match = _ASKS.search(sentence)
    if match is None:
        return
    asks_why, rest = "why" in match["how"].lower(), match["rest"]
    aux = (match["aux"] or "can").lower()
    denied = bool(match["neg"] or match["cannot"])
    if _PERSON.match(rest):
        if not asks_why or not re.fullmatch(rf"{_DO}|should|must|can|could", aux):
            return
    elif re.match(r"(?:it|there|this|that|they|he|she)\b", rest, re.IGNORECASE):
        if asks_why and re.match(r"it\b", rest, re.IGNORECASE):
            yield from _cut(_told(aux, rest, denied))
        return
    for part in _cut(rest):
        yield _told(aux, part, denied)
    if (stopped := _STOPPED.match(rest)) and not denied:
        yield f"{stopped['who']} {stopped['what']}"


def _told(aux: str, rest: str, denied: bool) -> str:
    """The order of a statement: the auxiliary stands behind what the question is about, as far as that can be told."""
    tokens = rest.split()
    at = _behind_subject(tokens, aux)
    helper = [f"{aux} not"] if denied else [] if aux == "do" else [aux]
    return " ".join([*tokens[:at], *helper, *tokens[at:]])


def _behind_subject(tokens: list[str], aux: str) -> int:
    least = 2 if re.fullmatch(r"(?i)the|an?|my|his|her|its|their|our|your|this|these|those", tokens[0]) else 1
    for at in range(least, len(tokens)):
        token, before = tokens[at].lower().strip(","), tokens[at - 1].lower()
        if _PREPOSITION.match(before) or tokens[at][:1].isupper():
            continue
        if aux in _BE.split("|"):
            acts = tokens[0].lower().endswith("ing")  # "using a phone": what comes first may be its object
            if (_FIRST.match(token) and not acts) or _STATE.fullmatch(token):
                return at
        elif token in _VERB or re.match(r"(?:not|never|only|still|always|often|usually|already)$", token):
            return at
    if aux in _BE.split("|"):
        return max(len(tokens) - 1, 1)
    named = next((at for at, token in enumerate(tokens) if at >= least and not token[:1].isupper()), least)
    return min(named if tokens[0][:1].isupper() else least, len(tokens))


def _cut(claim: str) -> Iterator[str]:
    """The claim without what another question follows it with."""
    cut = re.split(r",\s*(?:and|but|so)?\s*(?:why|how|what|when|where|is|are|can|should|do|does)\b", claim)[0]
    if cut.strip():
        yield cut


def _noun(words: str) -> str:
    """The last thing that is named."""
    tokens = words.split()
    for at in range(len(tokens) - 1, 0, -1):
        if re.match(r"(?:the|an?|his|her|its|their)$", tokens[at - 1], re.IGNORECASE):
            return " ".join(tokens[at - 1 :])
        if _PREPOSITION.match(tokens[at - 1].lower()) or tokens[at - 1].lower() in _VERB:
            return " ".join(tokens[at:])
    return tokens[-1] if len(tokens) > 1 and not tokens[0][0].isupper() else words


def _stated(claim: str) -> bool:
    """Whether it is a statement about the world: with a verb, and not about the person who asks."""
    claim = claim.strip()
    return bool(
        len(claim.split()) > 2
        and _FINITE.search(claim)
        and not _PERSON.match(claim)
        and not _QUESTION.match(claim)
        and not re.search(r"\b(?:i|i['’]?m|i['’]ve|my|me|we|our|ours|mine)\b", claim, re.IGNORECASE)
    )


def _chinese(sentence: str) -> Iterator[str]:
    for match in _ZH.finditer(sentence):
        yield match["since"] or (match["before"] or "") + match["why"]


def _german(sentence: str) -> Iterator[str]:
    if lead := _DE_LED.match(sentence):
        yield from () if _DE_PERSON.match(lead["claim"]) else (lead["claim"],)
        sentence = lead["rest"]
    if (trail := _DE_TRAIL.match(sentence)) and not _DE_PERSON.match(trail["claim"]):
        yield trail["claim"]
    if (asked := _DE_ASKS.match(sentence)) and not _DE_PERSON.match(asked["rest"]):
        rest = re.split(r",\s", asked["rest"])[0]
        yield f"{rest} {asked['verb']}"


_FORMS = {"en": _english, "zh": _chinese, "de": _german}
