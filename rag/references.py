"""Sentences that lean on another: "However, …", "It …", the items below "Never:"."""

from __future__ import annotations

import re

_OPENERS = re.compile(
    r"""[\s"'(*_]*(?:(?:yes|no|true|false|correct|wrong|right|never|always|ja|nein|oui|non|sí)(?=\s*(?:[.,!;:]|$))
    |(?:是的?|不是?|对|没有|はい|いいえ)(?=\s*(?:[。，、！.,!]|$))
    |(?:
    however|but|and|or|so|yet|its?|it['’]s|this|that|these|those|they|their|them|he|she|his|her|him|then|therefore|thus
    |hence|also|otherwise|instead|moreover|furthermore|nevertheless|nonetheless|such|both|neither|either
    |the\ (?:former|latter)|in\ (?:this|that)\ case|for\ this\ reason|if\ so|if\ not|because\ of\ this|as\ a\ result
    |in\ contrast|by\ contrast
    |on\ the\ other\ hand|except|besides|still|consequently|similarly|likewise|for\ (?:example|instance)|in\ addition
    |additionally|here|there(?!\ (?:is|are|was|were))
    |aber|jedoch|doch|es|er|sie|dies\w*|das\ (?:ist|sind|war|wird|kann|gilt)|daher|deshalb|außerdem|sonst|dann|dabei
    |allerdings|dennoch|trotzdem|hingegen|dagegen|ihre?|seine?
    |mais|cependant|toutefois|pourtant|ils?|elles?|ce|cet|cela|cette|ces|c['’]est|donc|ainsi|sinon|en\ revanche|de\ plus
    |son|sa|ses|leurs?
    |pero|sin\ embargo|est[oae]s?|es[oae]s?|él|ellas?|ellos|por\ (?:lo\ tanto|eso)|además|así|entonces|si\ no
    |no\ obstante|sus?
    )(?!\w)
    |但|然而|不过|可是|它|他(?!国)|她|这|那(?!么)|此(?!外)|此外|因此|所以|因而|而且|并且|另外
    |否则|其(?![实他])|该|于是|同时|相反
    |例如|反之
    |しかし|ただし|それ|これ|彼|その|この|また|だから|そのため|なお|一方|でも|つまり)""",
    re.IGNORECASE | re.VERBOSE,
)


def opener(sentence: str) -> str:
    """The first words of a sentence if they point to the one before; empty if they do not."""
    found = _OPENERS.match(sentence)
    return found[0].strip(" \"'(*_\n\t") if found else ""


_PRONOUNS = frozenset(
    "it its it's it’s they their he she his her him es er sie ihr ihre sein seine il elle ils elles son sa ses leur"
    " leurs él ella ellos ellas su sus 它 他 她 其 该 それ 彼".split()
)


def pronoun(word: str) -> bool:
    """Whether an opener only stands for what earlier sentences are about, and joins no thought to the last one."""
    return word.lower() in _PRONOUNS
