"""The engine, built from a configuration: the one place where its concrete parts come together."""

from __future__ import annotations

from pathlib import Path

from classifier.taxonomy import Taxonomy
from guard.absent import UNJUDGED_TAXONOMY, NoKnowledge, Unjudged
from guard.assemble_classifier import load_explainer, load_judge, load_other, load_responses, together
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_answerer, load_protector
from guard.choosing import Choice
from guard.config import Config, load_config
from guard.engine import Guard, Parts
from guard.errors import ConfigError, JournalError
from guard.journal import Journal, NoJournal
from guard.memory import RememberingClassifier
from guard.observer import NOBODY, Observers
from guard.output import output_checks
from guard.specialists import ByLanguage
from guard.types import Answerer, Classifier, Explainer, Protector


def load_guard(config: Config | Path | str | None = None, observers: Observers = NOBODY) -> Guard:
    """Build the engine: load the models, open the knowledge base and the journal.

    Args:
        config: a configuration, the path of one, or None for the defaults.
        observers: are told of what happens.

    Raises:
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """
    settings = config if isinstance(config, Config) else load_config(config)
    encoders = Encoders(settings)
    classifier, of_answers, taxonomy, explainer = _judges(settings, encoders)
    others = _others(settings, encoders)
    answerer, protector = _library(settings, encoders)
    return Guard(
        settings,
        Parts(
            classifier=classifier,
            answerer=answerer,
            output=output_checks(settings.output, of_answers),
            journal=load_journal(settings),
            protector=protector,
            judge=load_responses(settings, encoders),
            others=others,
            taxonomy=together(taxonomy, [other.taxonomy for other in others]),
            observers=observers,
            explainer=explainer,
            of_answers=of_answers,
        ),
    )


def _judges(config: Config, encoders: Encoders) -> tuple[Classifier, Classifier, Taxonomy, Explainer | None]:
    """What judges requests and what judges answers, the taxonomy of both, and what explains verdicts on requests."""
    if config.classifier.kind == "none":
        return Unjudged(), Unjudged(), UNJUDGED_TAXONOMY, None
    judge = load_judge(config, encoders)
    explainer = load_explainer(config, judge) if config.classifier.explain_tokens else None
    remembering = _remembering(config, judge)
    if not isinstance(judge, ByLanguage):
        return remembering, remembering, judge.taxonomy, explainer
    return remembering, _remembering(config, judge.default), judge.default.taxonomy, explainer


def _others(config: Config, encoders: Encoders) -> tuple[Choice, ...]:
    """The classifiers of some requests, each with a memory of its own."""
    found = []
    for name, other in config.classifiers.items():
        tiers = load_other(config, name, encoders)
        found.append(Choice(other.when.rule(), _remembering(config, tiers), tiers.taxonomy))
    return tuple(found)


def _remembering(config: Config, judge: Classifier) -> Classifier:
    remembers = config.classifier.cache
    return RememberingClassifier(judge, remembers) if remembers else judge


def _library(config: Config, encoders: Encoders) -> tuple[Answerer, Protector | None]:
    """What answers from the knowledge base and finds protective documents in it, or what stands in for it."""
    if config.knowledge.kind == "none":
        return NoKnowledge(), None
    answerer = load_answerer(config, encoders)
    return answerer, load_protector(config, answerer.knowledge)


def load_journal(config: Config) -> Journal:
    """Where the configuration keeps decisions.

    Raises:
        ConfigError: it cannot be opened, or is no journal.
    """
    settings = config.journal
    if not settings.kept:
        return NoJournal()
    from guard.journal.database import Database
    from guard.journal.prompts import Prompts
    from guard.journal.retention import Retention
    from guard.journal.writer import DatabaseJournal

    try:
        prompts = Prompts.of(settings)
        prompts.kept("")  # loads what a first request would wait for
        retention = Retention(settings.retention_days) if settings.retention_days else None
        return DatabaseJournal(Database(settings), prompts, retention)
    except JournalError as exc:
        raise ConfigError(str(exc)) from exc
