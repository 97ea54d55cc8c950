"""An edition of the configuration: all that a request goes by, compiled once and never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from classifier.taxonomy import Taxonomy
from classifier.types import Verdict
from guard.answers import AnswerTexts
from guard.choosing import Taxonomies
from guard.config import Config
from guard.conversation import Judged, Texts, Weighed, question_of, weigh
from guard.errors import ConfigError
from guard.language import Detector
from guard.output import Output, output_checks
from guard.policy import Rule, decide
from guard.response_check import AnswerCheck
from guard.rules import unsaid
from guard.types import SYSTEM_ROLES, Asked, Classifier, ExchangeJudge, Origin, ResponseCheck, TextKind, Turn
from guard.unreachable import unreachable
from guard.wires.types import Reading

LIVE = ("policy", "answers", "conversation", "output")
"""Sections that are taken over while the server runs, but for deadlines."""


@dataclass(frozen=True, slots=True)
class Edition:
    """What the configuration says of a request, ready to be asked.

    Attributes:
        config: every setting.
        version: the first 12 hex digits of the SHA-256 of the sections that can change while the server runs.
        rules: of the policy, in order.
        texts: what Airlock says in its own words.
        detector: tells the asker's language.
        reading: how requests are read.
        output: looks at what the model wrote.
        answers: holds what the model wrote against what was asked; None where nothing does.
        warnings: what is sound, and surely not meant: rules that can never match, texts that are never said.
    """

    config: Config
    version: str
    rules: tuple[Rule, ...]
    texts: AnswerTexts
    detector: Detector
    reading: Reading
    output: ResponseCheck
    answers: AnswerCheck | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        config: Config,
        output: ResponseCheck,
        taxonomy: Taxonomy | Taxonomies | None = None,
        judge: ExchangeJudge | None = None,
    ) -> Edition:
        """The edition of a configuration.

        Args:
            config: every setting.
            output: looks at what the model wrote.
            taxonomy: of the classifier, or of all where there are several; without it, categories that the
                configuration names are not looked up.
            judge: the model that answers are judged by; None where the configuration asks for none.

        Raises:
            ConfigError: a category, label, language or country that a setting names is not known.
        """
        if taxonomy:
            check_categories(config, taxonomy)
        rules = tuple(rule.rule() for rule in config.policy.rules)
        says = {rule.name: rule.say for rule in config.policy.rules if rule.say}
        texts = AnswerTexts(config.answers, says)
        refusals = texts.refusals if config.conversation.forget_refused else frozenset()
        return cls(
            config=config,
            version=version_of(config),
            rules=rules,
            texts=texts,
            detector=Detector(texts.languages),
            reading=Reading.by(config.conversation, refusals),
            output=output,
            answers=AnswerCheck(config.output.responses, judge) if config.output.responses.asked else None,
            warnings=(*(unreachable(rules, taxonomy) if taxonomy else ()), *unsaid(config.policy.rules)),
        )

    def succeeded_by(
        self,
        config: Config,
        classifier: Classifier,
        taxonomy: Taxonomy | Taxonomies | None,
        judge: ExchangeJudge | None,
    ) -> Edition:
        """The edition that takes over from a changed configuration what can change while the server runs.

        Raises:
            ConfigError: as of `of`; or a pattern of `output` may match more than is held back.
        """
        taken = {name: getattr(config, name) for name in LIVE}
        old, new = self.config.output, config.output
        loaded = {"model": old.responses.model, "encoder": old.responses.encoder}
        responses = new.responses.model_copy(update=loaded) if old.responses.asked else old.responses
        taken["output"] = new.model_copy(update={"deadline_s": old.deadline_s, "responses": responses})
        merged = self.config.model_copy(update=taken)
        changed = any(getattr(self.config, name) != getattr(config, name) for name in ("classifier", "classifiers"))
        if taxonomy and changed:
            try:
                check_categories(merged, taxonomy)
            except ConfigError as exc:
                raise ConfigError(f"{exc}. The models of the file are others, which only a restart loads") from exc
        output = self.output
        if merged.output != self.config.output:
            output = output_checks(merged.output, classifier)
        return Edition.of(merged, output, taxonomy, judge)

    def weigh(self, texts: Texts, verdicts: Sequence[Verdict], origin: Origin) -> Weighed:
        """What the texts of a request come to by the policy."""
        judged = [
            Judged(where, verdict, decide(self.rules, verdict, where, origin))
            for (where, _), verdict in zip(texts, verdicts, strict=True)
        ]
        return weigh(judged, self.config.conversation.context_from)

    def asked(self, turns: Sequence[Turn], texts: Texts) -> Asked | None:
        """What an answer will be held against; None where no answer is."""
        if self.answers is None:
            return None
        system = "\n".join(turn.text for turn in turns if turn.role in SYSTEM_ROLES)
        return Asked(question_of(texts), system)

    def spoken(self, texts: Texts) -> Callable[[], str | None]:
        """Says, once it is asked, what the user writes in: of the last turn, or else of the last turns together."""

        def language() -> str | None:
            together = [text for where, text in texts if where is TextKind.CONTEXT]
            return next(filter(None, map(self.detector.asked_in, (question_of(texts), *together))), None)

        return cache(language)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a changed configuration.

    Attributes:
        version: of the edition that is in force now.
        taken: settings that were taken over.
        restart: settings that differ from those in force, and are taken over by a restart only.
    """

    version: str
    taken: tuple[str, ...]
    restart: tuple[str, ...]


def version_of(config: Config) -> str:
    """The first 12 hex digits of the SHA-256 of the sections in `LIVE`."""
    said = {name: getattr(config, name).model_dump(mode="json") for name in LIVE}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def check_categories(config: Config, taxonomy: Taxonomy | Taxonomies) -> None:
    """A rule about a category that the model does not know would silently never match.

    Raises:
        ConfigError: there is one.
    """
    known = set(taxonomy.ids)
    named = {category: f"policy rule {rule.name!r}" for rule in config.policy.rules for category in rule.when.category}
    output = config.output
    if output.classifier and output.input_only != Output().input_only:  # the default is of the shipped taxonomy
        named |= {category: "output.input_only" for category in output.input_only}
    named |= {category: "answers.categories" for category in config.answers.categories}
    named |= {category: "moderation.categories" for category in config.moderation.categories}
    for category, where in named.items():
        if category not in known:
            raise ConfigError(
                f"{where} names the category {category!r}, which the classifier's taxonomy does not have; it has: "
                f"{', '.join(sorted(known))}"
            )
