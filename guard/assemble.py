"""The one place where concrete parts are built from a configuration; the only part of `guard` that loads models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from classifier.types import ClassifierError
from guard.config import Config, load_config
from guard.engine import Guard, Parts
from guard.errors import ConfigError, JournalError
from guard.journal import Journal, NoJournal, SqliteJournal
from guard.memory import RememberingClassifier
from guard.output import AllChecks, ClassifierCheck, PatternCheck
from guard.types import Classifier
from rag.types import KnowledgeError

if TYPE_CHECKING:
    from classifier.encoder import Encoder
    from classifier.model import TierClassifier
    from rag.answer import Answerer
    from rag.encoders import SentenceEncoder
    from rag.store import KnowledgeBase


def load_guard(config: Config | Path | str | None = None) -> Guard:
    """Build the engine: load the models, open the knowledge base and the journal.

    Args:
        config: a configuration, the path of one, or None for the defaults.

    Raises:
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """
    settings = config if isinstance(config, Config) else load_config(Path(config) if config else None)
    encoder = load_encoder(settings)
    tiers = load_classifier(settings, encoder)
    _check_categories(settings, tiers)
    classifier: Classifier = tiers
    if settings.classifier.cache:
        classifier = RememberingClassifier(tiers, settings.classifier.cache)
    return Guard(
        settings,
        Parts(
            classifier=classifier,
            answerer=load_answerer(settings, encoder),
            output=_output(settings, classifier),
            journal=_journal(settings),
        ),
    )


def load_encoder(config: Config) -> Encoder:
    """The encoder that classifier and knowledge base share.

    Raises:
        ConfigError: it is missing, damaged, or not the expected one.
    """
    import torch

    from classifier.encoder import load_encoder as load

    torch.set_num_threads(config.classifier.threads)
    try:
        return load(config.classifier.encoder)
    except ClassifierError as exc:
        raise ConfigError(f"classifier.encoder: {exc}") from exc


def load_classifier(config: Config, encoder: Encoder, *, limited: bool = True) -> TierClassifier:
    """The tier classifier.

    Args:
        config: names the model.
        encoder: what it sits on.
        limited: whether `classifier.max_tokens` holds; False reads texts of any length.

    Raises:
        ConfigError: the model is missing, damaged, or of another encoder.
    """
    from classifier.model import DEFAULT_MODEL, TierClassifier

    max_tokens = config.classifier.max_tokens if limited else None
    try:
        return TierClassifier.load(config.classifier.model or DEFAULT_MODEL, encoder, max_tokens=max_tokens)
    except ClassifierError as exc:
        raise ConfigError(f"classifier.model: {exc}") from exc


def sentence_encoder(encoder: Encoder) -> SentenceEncoder:
    """The same encoder as a maker of sentence embeddings; the weights are shared."""
    from rag.encoders import SentenceEncoder

    return SentenceEncoder.load(encoder.folder, sha256=encoder.sha256, model=encoder.lend())


def load_knowledge(config: Config, sentences: SentenceEncoder) -> KnowledgeBase:
    """The knowledge base.

    Raises:
        ConfigError: it is missing, damaged, or built with another encoder.
    """
    from rag.store import SAMPLE, KnowledgeBase

    try:
        return KnowledgeBase.open(config.knowledge.path or SAMPLE, sentences)
    except KnowledgeError as exc:
        raise ConfigError(f"knowledge.path: {exc}") from exc


def load_answerer(config: Config, encoder: Encoder) -> Answerer:
    """The knowledge base with its extractive interpretation model.

    Raises:
        ConfigError: the knowledge base is missing, damaged, or built with another encoder.
    """
    from rag.answer import Answerer
    from rag.interpret import ExtractiveInterpreter

    sentences = sentence_encoder(encoder)
    return Answerer(load_knowledge(config, sentences), ExtractiveInterpreter(sentences), k=config.knowledge.passages)


def _output(config: Config, classifier: Classifier) -> AllChecks:
    output = config.output
    checks: list[PatternCheck | ClassifierCheck] = []
    if output.patterns:
        checks.append(PatternCheck({pattern.name: pattern.regex for pattern in output.patterns}, output.hold_back))
    if output.classifier:
        checks.append(ClassifierCheck(classifier, output.unsafe_from, output.hold_back, output.input_only))
    return AllChecks(checks)


def _journal(config: Config) -> Journal:
    if config.journal.path is None:
        return NoJournal()
    try:
        return SqliteJournal(config.journal.path, prompts=config.journal.prompts)
    except JournalError as exc:
        raise ConfigError(str(exc)) from exc


def _check_categories(config: Config, classifier: TierClassifier) -> None:
    """A rule about a category that the model does not know would silently never match."""
    known = set(classifier.taxonomy.ids)
    named = {category: f"policy rule {rule.name!r}" for rule in config.policy.rules for category in rule.when.category}
    named |= {category: "output.input_only" for category in config.output.input_only if config.output.classifier}
    named |= {category: "answers.categories" for category in config.answers.categories}
    for category, where in named.items():
        if category not in known:
            raise ConfigError(
                f"{where} names the category {category!r}, which the classifier's taxonomy does not have; it has: "
                f"{', '.join(sorted(known))}"
            )
