"""What turns a sentence round: negation, conditions, quantifiers, modality, opposites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from rag.facts.cues import CUES, Cues, compiled
from rag.facts.numbers import numbers
from rag.facts.words import coverage, words

_ALIKE = 0.5  # share of a clause's words from which two clauses are of the same thing
_NOT_NEGATING = re.compile(
    r"\bnot only\b|\bnot just\b|\bno (?:more|less|fewer|later) than\b|\bnot (?:more|less|fewer) than\b|\bno solo\b"
    r"|\bnicht nur\b|\bpas seulement\b"
    r"|不[超少低高多]于?过?|不到|なければな(?:りません|らない)|かもしれ(?:ません|ない)",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:false|untrue|incorrect|wrong|myth|not true|not the case|den(?:y|ies|ied)|disprove[sdn]?|refute[sd]?) that\b"
    r"|\banything but\b"
    r"|\b(?:claims?|idea|belief|notion|rumou?r|theory|story|assertion|suggestion) that\b.{3,200}"
    r"\b(?:is|are|was|were) (?:false|untrue|incorrect|wrong|unfounded|mistaken|a myth|a hoax|nonsense)\b"
    r"|\b(?:falsch|unwahr|nicht wahr|ein mythos), dass\b|\b(?:faux|pas vrai) que?\b|\bfalso que\b|并非|不是真的",
    re.IGNORECASE,
)
_REPORT = re.compile(
    r"\b(?:claim|idea|belief|notion|rumou?r|theory|story|assertion|suggestion|myth|view|allegation|fear)s? that\b"
    r"|\b(?:say|says|said|claim|claims|claimed|argue|argues|argued|believe|believes|believed|think|thinks|thought|allege"
    r"|alleges|alleged|suppose|supposed|assume|assumed|insist|insists|insisted|contend|contends|contended|maintain"
    r"|suspect|suspects|suspected|object|reply|answer) that\b|\baccording to\b|\b(?:so-called|allegedly|supposedly)\b"
    r"|\b(?:sagen|sagt|behaupten|behauptet|meinen|meint|glauben|glaubt|die behauptung|das gerücht), dass\b"
    r"|\bangeblich\b|\bselon\b|\bsegún\b|据说|声称|宣称|有人认为|认为|主张|谣言|と言われ|という主張|と主張",
    re.IGNORECASE,
)
_THAN = re.compile(r"(.{1,300}?)\b(more|less|fewer|[a-z]{2,20}er)\b.{0,300}\bthan\b(.{1,300})", re.IGNORECASE)
_VERB = re.compile(
    r"(?<!\w)(?:is|are|was|were|has|have|had|do|does|did|can|cannot|could|should|must|will|would|may|might)(?!\w)",
    re.IGNORECASE,
)
_BINDS = re.compile(r"(?<!\w)(?:when|whenever|while|until|till|once)(?!\w)", re.IGNORECASE)
_SAME = 0.75  # share of a clause's words from which a claim says what it says
_PREFIXED = {  # "non-" is read as one word with what it stands before
    "en": re.compile(
        r"(?<!\w)(?:un(?!less|like\b|til|der|it|i[fov]|cover|fold|veil|lock)|non-?(?!sens|chal)"
        r"|i[nmlr](?=[a-z]{3,}(?:able|ible|ent|ant|ate|ete|ive|al|id|ous|ect|ure|ly)(?!\w))(?!flamm|different|valuable)"
        r"|dis(?=prov|allow|approv|agree|appear|honest|advantag|qualif|trust|continu|connect|similar|satisf)"
        r"|contra(?=indicat))(?P<word>[a-z]{4,})(?!\w)",
        re.IGNORECASE,
    ),
    "de": re.compile(r"(?<!\w)(?:[Uu]n(?!ter|bedingt|heimlich)|nicht-?)(?P<word>[a-zäöüß]{5,}?)(?:e[mnrs]?)?(?!\w)"),
}
_IMPERATIVE = re.compile(
    r"\s*(?:(?:please|then|also|so|first|just)\s)*(?:(?:always\s|never\s|do not\s|don['’]t\s)[a-z]+|(?:add|allow|apply"
    r"|ask|avoid|bring|call|carry|change|check|choose|clean|close|come|contact|consult|continue|cool|cover|dial|drink"
    r"|eat|fill|find|finish|follow|get|give|go|hold|inform|keep|leave|look|make|move|open|pay|phone|place|press|put|read"
    r"|remove|repeat|report|rest|return|rinse|run|send|sign|sit|stay|stop|store|switch|take|talk|tell|throw|treat|turn"
    r"|use|visit|wait|walk|wash|wear|write)\s(?:an?|the|this|that|these|those|your|it|them|him|her|us|all|any|at|to|in"
    r"|on|off|for|from|until|up|out|with|by|\d[\d.,]*|two|three|four|five|six|eight|ten|twelve))(?!\w)",
    re.IGNORECASE,
)
_IS = re.compile(r"\s(?:is|are|was|were|has|have)\s", re.IGNORECASE)  # "Call centres are open."
_DEMANDS = ("must", "should")  # what an imperative says too
_WHEN = r"when|in case|wenn|quand|lorsque|en cas|cuando|en caso|时|的话|場合|とき|れば|たら"


@dataclass(frozen=True, slots=True)
class Turn:
    """A difference that turns what the evidence says.

    Attributes:
        rule: ``negation``, ``opposite``, ``condition``, or a class of words such as ``quantifier``.
        reason: the same in words.
        opposed: whether the evidence says the opposite; else it says something less or something bound.
        words: the claim's and the evidence's, of an opposite.
    """

    rule: str
    reason: str
    opposed: bool
    words: tuple[str, ...] = ()


def denied(text: str) -> bool:
    """Whether a sentence says of a statement that it is false."""
    return bool(_DENIAL.search(text))


def reported(text: str) -> bool:
    """Whether a sentence only tells what somebody says or thinks."""
    return bool(_REPORT.search(text))


def turned(claim: str, evidence: str, language: str) -> Turn | None:
    """The first difference between a claim and the sentence of the evidence that is about the same thing.

    Args:
        claim: normalised.
        evidence: normalised, in the same language.
        language: one of `rag.facts.language`.
    """
    denials = [denied(text) for text in (claim, evidence)]
    if denials[0] != denials[1]:
        return Turn("negation", f"only the {'claim' if denials[0] else 'evidence'} says that it is false", opposed=True)
    if reported(evidence) and not reported(claim):
        return Turn("report", "the evidence only tells that somebody says so", opposed=False)
    if _exchanged(claim, evidence):
        return Turn("order", "the evidence compares the same things the other way round", opposed=True)
    cues = CUES[language]
    pairs = list(_pairs(claim, evidence, cues, language))
    negation = next(filter(None, (_negation(mine, theirs, cues, language) for mine, theirs in pairs)), None)
    opposite = _opposite(claim, evidence, language)
    if negation and opposite and not compiled(cues.negation, language).search(" ".join(opposite.words)):
        return None  # "not safe" and "dangerous"
    if negation or opposite:
        return negation or opposite
    for mine, theirs in pairs:
        for name in cues.classes:
            if found := _class(name, (mine, claim), (theirs, evidence), language):
                return found
    return _condition(claim, evidence, cues, language)


def _pairs(claim: str, evidence: str, cues: Cues, language: str) -> Iterator[tuple[str, str]]:
    """Each clause of the claim with the clause of the evidence that is most like it."""
    theirs = _about(evidence, cues, language)
    mine = _about(claim, cues, language)
    parallel = len(mine) == len(theirs) and coverage(words(claim), words(evidence)) >= _ALIKE
    for at, (clause, said) in enumerate(mine):
        score, _, best = max(
            ((coverage(said, known), coverage(known, said), other) for other, known in theirs),
            default=(0.0, 0.0, ""),
        )
        if score >= _ALIKE:
            yield clause, best
        elif parallel:
            yield clause, theirs[at][0]


def _about(text: str, cues: Cues, language: str) -> list[tuple[str, list[str]]]:
    """Each clause with its words; one that goes on without a subject ("… and should not …") has that before it."""
    found = []
    subject: list[str] = []
    for clause in _clauses(text, cues, language):
        said = words(_bare(clause, cues, language))
        verb = _VERB.search(clause) if language == "en" else None
        if verb and not clause[: verb.start()].strip():
            said = subject + said
        elif verb:
            subject = words(clause[: verb.start()])
        found.append((clause, said))
    return found


def _clauses(text: str, cues: Cues, language: str) -> list[str]:
    ends = rf"[;!?()\u3001\"]|(?<!\d)[,:]|[,.:](?!\d)|\s-\s|{compiled(cues.clause, language).pattern}"
    return [clause for clause in re.split(ends, text, flags=re.IGNORECASE) if clause and clause.strip()]


def _bare(clause: str, cues: Cues, language: str) -> str:
    """A clause without the words that may turn it, so that only what it is about is compared."""
    for name in cues.classes:
        clause = _classed(name, language)[0].sub("", clause)
    return compiled(cues.negation, language).sub("", clause)


def _negation(mine: str, theirs: str, cues: Cues, language: str) -> Turn | None:
    pattern = compiled(cues.negation, language)
    said, known = (pattern.findall(_NOT_NEGATING.sub(" ", text)) for text in (mine, theirs))
    odd = [len(found) % 2 if language == "en" else bool(found) for found in (said, known)]  # two make it positive again
    if odd[0] == odd[1]:
        return None
    where, cue = ("claim", said) if len(said) > len(known) else ("evidence", known)
    return Turn("negation", f"only the {where} is negated ({cue[-1]})", opposed=True)


def _opposite(claim: str, evidence: str, language: str) -> Turn | None:
    if prefixed := _prefixed(claim, evidence, language):
        return prefixed
    for left, right in CUES[language].opposites:
        sides = [compiled(side, language) for side in (left, right)]
        mine = [side.search(claim) for side in sides]
        theirs = [side.search(evidence) for side in sides]
        for one, other in ((0, 1), (1, 0)):
            said, known = mine[one], theirs[other]
            if said and known and not mine[other] and not theirs[one]:
                return Turn(
                    "opposite", f"the evidence says {known[0]!r}, the claim {said[0]!r}", True, (said[0], known[0])
                )
        counts = [[len(side.findall(text)) for side in sides] for text in (claim, evidence)]
        more = [mine_ - theirs_ for mine_, theirs_ in zip(*counts, strict=True)]
        if more[0] and more[0] == -more[1]:  # one of several is the other way round
            return Turn("opposite", "the evidence says the opposite of a word of the claim", True)
    return None


def _prefixed(claim: str, evidence: str, language: str) -> Turn | None:
    """A word of which the other text has the opposite by a prefix: reliable and unreliable, giftig and ungiftig."""
    pattern = _PREFIXED.get(language)
    if pattern is None:
        return None
    mine, theirs = ({found["word"].lower(): found[0] for found in pattern.finditer(text)} for text in (claim, evidence))
    if mine.keys() == theirs.keys():
        return None
    plain = [_plain(pattern.sub(" ", text), language) for text in (claim, evidence)]
    for word, written in mine.items():
        if word in plain[1] and word not in plain[0] and word not in theirs:
            return Turn("opposite", f"the evidence says {word!r}, the claim {written!r}", True, (written, word))
    for word, written in theirs.items():
        if word in plain[0] and word not in plain[1] and word not in mine:
            return Turn("opposite", f"the evidence says {written!r}, the claim {word!r}", True, (word, written))
    return None


def _plain(text: str, language: str) -> set[str]:
    """Its words, also without endings of German adjectives."""
    found = {word.lower() for word in re.findall(r"[^\W\d_]+", text)}
    return found | ({re.sub("e[mnrs]?$", "", word) for word in found} if language == "de" else set())


def _exchanged(claim: str, evidence: str) -> bool:
    """Whether both compare, such as "A is better than B", and one has the things in each other's places."""
    mine, theirs = _THAN.search(claim), _THAN.search(evidence)
    if not mine or not theirs or mine[2].lower() != theirs[2].lower():
        return False
    (left, right), (first, second) = ((set(words(found[1])), set(words(found[3]))) for found in (mine, theirs))
    same = (left & first) | (right & second)
    return bool((left & second) - same and (right & first) - same)


@cache
def _classed(name: str, language: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for all words of a class, the longest first, and which value each group stands for."""
    values = CUES[language].classes[name]
    phrases = sorted(
        ((phrase, value) for value, pattern in values.items() for phrase in pattern.split("|")),
        key=lambda entry: -len(entry[0]),
    )
    groups = {f"g{number}": value for number, (_, value) in enumerate(phrases)}
    pattern = "|".join(f"(?P<g{number}>{phrase})" for number, (phrase, _) in enumerate(phrases))
    return compiled(pattern, language), groups


def _class(name: str, claim: tuple[str, str], evidence: tuple[str, str], language: str) -> Turn | None:
    """A difference in one class of words; claim and evidence are each a clause and its sentence."""
    mine, theirs = (_values(name, clause, language) for clause in (claim[0], evidence[0]))
    added = {value: said for value, said in mine.items() if value not in theirs}
    dropped = {value: known for value, known in theirs.items() if value not in mine}
    if name == "modality" and language == "en":
        _demanded(added, evidence[0])
        _demanded(dropped, claim[0])
    if name == "bound":
        dropped = {value: known for value, known in dropped.items() if _bounded(known, evidence[0], claim[1], language)}
    said, known = (next(iter(values.values()), "") for values in (added, dropped))
    if added and dropped:
        return Turn(name, f"the evidence says {known!r}, the claim {said!r}", opposed=True)
    if added and not mine.keys() & _values(name, evidence[1], language).keys():
        return Turn(name, f"the evidence does not say {said!r}", opposed=False)
    if dropped and not theirs.keys() & _values(name, claim[1], language).keys():
        return Turn(name, f"the evidence says {known!r}, the claim leaves it out", opposed=False)
    return None


def _demanded(values: dict[str, str], other: str) -> None:
    """Leave out the demands that the other clause makes by its mood: "Wait." is "You must wait."."""
    if _IMPERATIVE.match(other) and not _IS.search(other):
        for value in _DEMANDS:
            values.pop(value, None)


def _bounded(cue: str, evidence: str, claim: str, language: str) -> bool:
    """Whether a claim names what a bound of the evidence stands before; another number's bound is no matter of its."""
    known, said = numbers(evidence, language), numbers(claim, language)
    ends = [match.end() for match in re.finditer(re.escape(cue), evidence)]
    bounded = [number for number in known if any(0 <= number.start - end <= 2 for end in ends)]
    return not bounded or any(one.says(other) or other.says(one) for one in bounded for other in said)


def _values(name: str, text: str, language: str) -> dict[str, str]:
    """The values of a class that a text has, each with its words."""
    pattern, groups = _classed(name, language)
    return {groups[found.lastgroup]: found[0] for found in pattern.finditer(text) if found.lastgroup}


def _condition(claim: str, evidence: str, cues: Cues, language: str) -> Turn | None:
    pattern = compiled(cues.condition, language)
    said, known = pattern.search(claim), pattern.search(evidence)
    when = compiled(_WHEN, language)
    if language == "en" and not said and not when.search(claim) and (left_out := _bound(claim, evidence)):
        return Turn("condition", f"the evidence binds it ({left_out!r}), the claim does not", opposed=False)
    if known and not said and not when.search(claim):
        return Turn(
            "condition", f"the evidence has a condition ({known[0]!r}) that the claim leaves out", opposed=False
        )
    if said and not known and not when.search(evidence):
        return Turn("condition", f"the claim has a condition ({said[0]!r}) that the evidence lacks", opposed=False)
    return None


def _bound(claim: str, evidence: str) -> str:
    """The word that binds, in the evidence, what a claim says to something that the claim leaves out; empty if none."""
    said = words(claim)
    for match in _BINDS.finditer(evidence):
        before = re.split(r"[,;:]| (?:and|but|or|so) ", evidence[: match.start()].rstrip(" ,"))[-1]
        after = re.split(r"[;:]|, ", evidence[match.end() :])[0]
        about, bound = words(before), words(after)
        if about and bound and coverage(about, said) >= _SAME and coverage(bound, said) < _ALIKE:
            return match[0].strip()
    return ""
