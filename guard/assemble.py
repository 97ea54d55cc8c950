"""The one place where concrete parts are built from a configuration; the only part of `guard` that loads models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from classifier.taxonomy import SHIPPED_MODEL, SHIPPED_RESPONSES, TAXONOMY, Taxonomy
from classifier.types import ClassifierError
from guard.absent import UNJUDGED_TAXONOMY, NoKnowledge, Unjudged
from guard.choosing import Choice, Taxonomies
from guard.config import Config, load_config
from guard.engine import Guard, Parts
from guard.errors import ConfigError, JournalError
from guard.fields import SHIPPED
from guard.interpretation import Endpoint, Generative, Reader, Similarity
from guard.journal import Journal, NoJournal
from guard.language import Detector
from guard.memory import RememberingClassifier
from guard.observer import NOBODY, Observers
from guard.output import output_checks
from guard.types import Answerer as AnswererPart
from guard.types import Classifier, ExchangeJudge, Protector
from guard.types import Explainer as ExplainerPart
from rag.types import Gate, KnowledgeError

if TYPE_CHECKING:
    from classifier.chosen import Choice as RuntimeChoice
    from classifier.encoder import Encoder
    from classifier.exported import ExportCache
    from classifier.model import TierClassifier
    from classifier.why import Explainer
    from rag.answer import Answerer
    from rag.interpret import InterpretationModel
    from rag.pairs import PairReader
    from rag.related import Related
    from rag.store import KnowledgeBase
    from rag.types import Encoder as SentenceVectors
    from rag.types import Reranker, SupportModel
    from rag.write import Writer

P = TypeVar("P", bound="PairReader")


def load_guard(config: Config | Path | str | None = None, observers: Observers = NOBODY) -> Guard:
    """Build the engine: load the models, open the knowledge base and the journal.

    Args:
        config: a configuration, the path of one, or None for the defaults.
        observers: are told of what happens.

    Raises:
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """
    settings = config if isinstance(config, Config) else load_config(Path(config) if config else None)
    encoders = Encoders(settings)
    classifier, taxonomy, explainer = _judge(settings, encoders)
    others = _others(settings, encoders)
    answerer, protector = _library(settings, encoders)
    return Guard(
        settings,
        Parts(
            classifier=classifier,
            answerer=answerer,
            output=output_checks(settings.output, classifier),
            journal=load_journal(settings),
            protector=protector,
            judge=load_responses(settings, encoders),
            others=others,
            taxonomy=_together(taxonomy, [other.taxonomy for other in others]),
            observers=observers,
            explainer=explainer,
        ),
    )


def _judge(config: Config, encoders: Encoders) -> tuple[Classifier, Taxonomy, ExplainerPart | None]:
    """The classifier with its memory and its taxonomy, or what stands in for it; and what explains its verdicts."""
    if config.classifier.kind == "none":
        return Unjudged(), UNJUDGED_TAXONOMY, None
    tiers = load_classifier(config, encoders)
    explainer = load_explainer(config, tiers) if config.classifier.explain_tokens else None
    return _remembering(config, tiers), tiers.taxonomy, explainer


def _others(config: Config, encoders: Encoders) -> tuple[Choice, ...]:
    """The classifiers of some requests, each with a memory of its own."""
    found = []
    for name, other in config.classifiers.items():
        tiers = load_other(config, name, encoders)
        found.append(Choice(name, other.when.rule(), _remembering(config, tiers), tiers.taxonomy))
    return tuple(found)


def _remembering(config: Config, tiers: TierClassifier) -> Classifier:
    remembers = config.classifier.cache
    return RememberingClassifier(tiers, remembers) if remembers else tiers


def _together(taxonomy: Taxonomy, others: Sequence[Taxonomy]) -> Taxonomy | Taxonomies:
    return Taxonomies((taxonomy, *others)) if others else taxonomy


def load_explainer(config: Config, classifier: TierClassifier) -> Explainer:
    """What says why a classifier's verdicts are as they are, with the labelled examples in the model's folder.

    Raises:
        ConfigError: the examples are damaged, or of another adapter.
    """
    from classifier.examples import Examples
    from classifier.why import Explainer

    try:
        examples = Examples.load(config.classifier.model or SHIPPED_MODEL, classifier.taxonomy)
    except ClassifierError as exc:
        raise ConfigError(f"classifier.model: {exc}") from exc
    return Explainer(classifier, examples, budget=config.classifier.explain_tokens)


def _library(config: Config, encoders: Encoders) -> tuple[AnswererPart, Protector | None]:
    """What answers from the knowledge base and finds protective documents in it, or what stands in for it."""
    if config.knowledge.kind == "none":
        return NoKnowledge(), None
    answerer = load_answerer(config, encoders)
    return answerer, load_protector(config, answerer.knowledge)


class Encoders:
    """The encoders of a configuration, each loaded once: parts that name the same one share its weights."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loaded: dict[str, Encoder] = {}

    def get(self, setting: str, name: str) -> Encoder:
        """The encoder of that name.

        Raises:
            ConfigError: it is missing, damaged, or not the expected one; the message names the setting.
        """
        import torch

        from classifier.encoder import load_encoder

        torch.set_num_threads(self._config.classifier.threads)
        try:
            if name not in self._loaded:
                self._loaded[name] = load_encoder(name)
        except ClassifierError as exc:
            raise ConfigError(f"{setting}: {exc}") from exc
        return self._loaded[name]


def load_classifier(config: Config, encoders: Encoders, *, limited: bool = True) -> TierClassifier:
    """The tier classifier, on the encoder that the configuration names, or else its own folder.

    Args:
        config: names the model.
        encoders: lend it the encoder.
        limited: whether `classifier.max_tokens` holds; False reads texts of any length.

    Raises:
        ConfigError: there is none, or the model is missing, damaged, or of another encoder.
    """
    if config.classifier.kind == "none":
        raise ConfigError("classifier.kind is 'none', so there is no classifier to ask; name a model, or leave it out")
    folder, name = _model(config)
    return _tier_classifier("classifier", folder, name, config, encoders, limited=limited)


def load_other(config: Config, name: str, encoders: Encoders) -> TierClassifier:
    """A classifier of some requests, on the encoder that its folder names.

    Raises:
        ConfigError: the model is missing or damaged, or its encoder is.
    """
    from classifier.settings import ClassifierSettings

    folder = config.classifiers[name].model
    try:
        encoder = ClassifierSettings.load(folder).encoder
    except ClassifierError as exc:
        raise ConfigError(f"classifiers.{name}.model: {exc}") from exc
    return _tier_classifier(f"classifiers.{name}", folder, encoder, config, encoders)


def _tier_classifier(
    section: str, folder: Path, encoder: str, config: Config, encoders: Encoders, *, limited: bool = True
) -> TierClassifier:
    from classifier.chosen import open_exported

    max_tokens = config.classifier.max_tokens if limited else None
    try:
        choice = runtime_choice(config) if section == "classifier" else _whatever_is_there(config)
        exported = open_exported(folder, encoder, lambda: _encoder_sha256(encoder), choice, max_tokens=max_tokens)
        if exported:
            return exported
        from classifier.model import TierClassifier

        return TierClassifier.load(folder, encoders.get(f"{section}.encoder", encoder), max_tokens=max_tokens)
    except ClassifierError as exc:
        raise ConfigError(f"{section}.model: {exc}") from exc


def load_torch_classifier(config: Config) -> tuple[Encoder, TierClassifier]:
    """The tier classifier in PyTorch whatever runtime the configuration names, of texts of any length, and its encoder.

    Raises:
        ConfigError: the model is missing, damaged, or of another encoder.
    """
    from classifier.model import TierClassifier

    folder, name = _model(config)
    encoder = Encoders(config).get("classifier.encoder", name)
    try:
        return encoder, TierClassifier.load(folder, encoder)
    except ClassifierError as exc:
        raise ConfigError(f"classifier.model: {exc}") from exc


def load_responses(config: Config, encoders: Encoders) -> ExchangeJudge | None:
    """The model that answers are judged by; None where `output.responses` asks for none.

    Raises:
        ConfigError: it is missing, damaged, of another encoder, or reads something else.
    """
    settings = config.output.responses
    if not settings.asked or settings.model is None:
        return None
    from classifier.responses import ResponseClassifier
    from classifier.settings import ClassifierSettings

    folder = SHIPPED_RESPONSES if settings.model == SHIPPED else settings.model
    try:
        name = settings.encoder or ClassifierSettings.load(folder).encoder
        encoder = encoders.get("output.responses.encoder", name)
        return ResponseClassifier.load(folder, encoder, max_tokens=config.classifier.max_tokens)
    except ClassifierError as exc:
        raise ConfigError(f"output.responses.model: {exc}") from exc


def export_cache(config: Config, encoder: Encoder) -> ExportCache:
    """Where exports of the configured classifier are."""
    from classifier.exported import ExportCache

    return ExportCache(config.classifier.exports, _model(config)[0], encoder.sha256)


def _model(config: Config) -> tuple[Path, str]:
    """The folder of the classifier and the setting of its encoder."""
    from classifier.settings import ClassifierSettings

    folder = config.classifier.model or SHIPPED_MODEL
    try:
        return folder, config.classifier.encoder or ClassifierSettings.load(folder).encoder
    except ClassifierError as exc:
        raise ConfigError(f"classifier.model: {exc}") from exc


def _encoder_sha256(name: str) -> str:
    from classifier.weights import encoder_path, encoder_sha256

    try:
        return encoder_sha256(name, encoder_path(name))
    except ClassifierError as exc:
        raise ConfigError(f"classifier.encoder: {exc}") from exc


def runtime_choice(config: Config) -> RuntimeChoice:
    """Which runtime the configuration asks for."""
    from classifier.chosen import Choice as RuntimeChoice

    asked = config.classifier
    return RuntimeChoice(asked.runtime, asked.precision, asked.exports, asked.threads)


def _whatever_is_there(config: Config) -> RuntimeChoice:
    """For models that were perhaps never exported: what verified export there is, else PyTorch."""
    asked = runtime_choice(config)
    return asked if asked.runtime == "torch" else replace(asked, runtime="auto", precision="auto")


def load_taxonomy(config: Config) -> Taxonomy | Taxonomies:
    """The taxonomies of all classifiers, without the classifiers.

    Raises:
        ConfigError: a model's folder has none.
    """
    if config.classifier.kind == "none":
        return UNJUDGED_TAXONOMY
    folders = {f"classifiers.{name}.model": other.model for name, other in config.classifiers.items()}
    found = []
    for setting, folder in {"classifier.model": config.classifier.model or SHIPPED_MODEL, **folders}.items():
        try:
            found.append(Taxonomy.load(folder / TAXONOMY))
        except ClassifierError as exc:
            raise ConfigError(f"{setting}: {exc}") from exc
    return _together(found[0], found[1:])


def load_sentences(config: Config, encoders: Encoders) -> SentenceVectors:
    """The maker of sentence embeddings that the knowledge base is searched with.

    Raises:
        ConfigError: its encoder is missing, damaged, or not the expected one.
    """
    from rag.pooled import sentence_encoder

    encoder = encoders.get("knowledge.encoder", config.knowledge.encoder)
    try:
        return sentence_encoder(encoder.path, encoder.lend(), encoder.tokenizer, encoder.sha256)
    except KnowledgeError as exc:
        raise ConfigError(f"knowledge.encoder: {exc}") from exc


def load_knowledge(config: Config, sentences: SentenceVectors) -> KnowledgeBase:
    """The knowledge base, with its reranker if one is named.

    Raises:
        ConfigError: there is none, or it is missing, damaged, or built with another encoder.
    """
    if config.knowledge.kind == "none":
        raise ConfigError("knowledge.kind is 'none', so there is no knowledge base; name one, or leave it out")
    from rag.store import SAMPLE, KnowledgeBase

    reranker = _reranker(config.knowledge.reranker) if config.knowledge.reranker else None
    try:
        return KnowledgeBase.open(config.knowledge.path or SAMPLE, sentences, reranker=reranker)
    except KnowledgeError as exc:
        raise ConfigError(f"knowledge.path: {exc}") from exc


def load_writer(config: Config, sentences: SentenceVectors, *, make: bool = True) -> Writer:
    """The writing side of the knowledge base.

    Args:
        config: names it.
        sentences: the encoder that it was made with.
        make: whether one is made if it is not there.

    Raises:
        ConfigError: none is named, or it is not there, or cannot be written.
    """
    from rag.schema import DatabaseFile
    from rag.write import Writer

    if config.knowledge.path is None:
        raise ConfigError("knowledge.path: the sample of the package is not changed; name a folder with --kb or there")
    try:
        if not make:
            DatabaseFile.find(config.knowledge.path)
        return Writer(config.knowledge.path, sentences)
    except KnowledgeError as exc:
        raise ConfigError(f"knowledge.path: {exc}") from exc


def load_answerer(config: Config, encoders: Encoders) -> Answerer:
    """The knowledge base with its interpretation model and, if there is one, the support model of the citation gate.

    Raises:
        ConfigError: a part is missing, damaged, or of another encoder.
    """
    from rag.answer import Answerer

    sentences = load_sentences(config, encoders)
    support = load_support(config, encoders)
    knowledge = config.knowledge
    return Answerer(
        load_knowledge(config, sentences),
        load_interpreter(config, sentences, encoders),  # last of the models: one that generates sets torch's threads
        k=knowledge.passages,
        where=knowledge.where,
        mode=knowledge.mode,
        support=support,
        gate=gate(config),
        related=load_related(sentences),
    )


def load_related(sentences: SentenceVectors) -> Related:
    """What finds quotes on the topic where nothing answers for sure, by the knowledge base's encoder."""
    from rag.interpret import ExtractiveInterpreter, Selection
    from rag.related import RELATED_FROM, Related

    selection = Selection(threshold=RELATED_FROM)
    return Related(ExtractiveInterpreter(sentences, selection, language=Detector(()).language))


def load_protector(config: Config, knowledge: KnowledgeBase) -> Protector:
    """What finds protective documents of the knowledge base; it costs nothing where no rule wants them."""
    from rag.protective import Protector as ProtectiveDocuments

    settings = config.knowledge
    return ProtectiveDocuments(knowledge, settings.protective_from, where=settings.where, gate=gate(config))


def load_interpreter(config: Config, sentences: SentenceVectors, encoders: Encoders) -> InterpretationModel:
    """The interpretation model of the configured kind.

    Args:
        config: names it.
        sentences: the knowledge base's encoder.
        encoders: lend a reader its encoder.

    Raises:
        ConfigError: its folder is missing or damaged, or its key is not set.
    """
    settings = config.interpretation
    match settings:
        case Similarity():
            from rag.interpret import ExtractiveInterpreter

            return ExtractiveInterpreter(sentences, language=Detector(()).language)
        case Reader():
            from rag.reader import EvidenceReader, ReaderInterpreter

            reader = _pair_reader(
                EvidenceReader, "interpretation.", reader_folder(settings), settings.encoder, encoders
            )
            return ReaderInterpreter(reader, sentences)
        case Generative():
            from rag.generative import GenerativeInterpreter

            try:
                return GenerativeInterpreter.load(
                    settings.model, threads=settings.threads, max_tokens=settings.max_tokens, base=settings.base
                )
            except KnowledgeError as exc:
                raise ConfigError(f"interpretation.model: {exc}") from exc
        case Endpoint():
            from guard.endpoint import EndpointInterpreter

            return EndpointInterpreter(settings, deadline_s=config.knowledge.deadline_s)


def load_support(config: Config, encoders: Encoders) -> SupportModel | None:
    """The support model of the citation gate; None without one.

    Raises:
        ConfigError: its folder is missing or damaged.
    """
    folder = support_folder(config)
    if folder is None:
        return None
    from rag.support import SupportReader

    return _pair_reader(SupportReader, "grounding.support_", folder, config.grounding.support_encoder, encoders)


def reader_folder(settings: Reader) -> Path:
    """The folder of the evidence reader."""
    from rag.reader import SHIPPED as FOLDER

    return FOLDER if settings.model == SHIPPED else settings.model


def support_folder(config: Config) -> Path | None:
    """The folder of the support model; None without one."""
    from rag.support import SHIPPED as FOLDER

    return FOLDER if config.grounding.support_model == SHIPPED else config.grounding.support_model


def gate(config: Config) -> Gate:
    """The citation gate's thresholds and limits."""
    return Gate(**config.grounding.model_dump(exclude={"support_model", "support_encoder"}))


def _pair_reader(kind: type[P], prefix: str, folder: Path, encoder: str | None, encoders: Encoders) -> P:
    """A reader of pairs on the encoder that its setting or else its own folder names.

    Args:
        kind: the reader's class.
        prefix: of the settings `model` and `encoder`.
        folder: the model's.
        encoder: the setting.
        encoders: lend it the encoder.
    """
    from rag.pairs import PairSettings

    try:
        name = encoder or PairSettings.load(folder, kind.task).encoder
        return kind.load(folder, encoders.get(f"{prefix}encoder", name))
    except KnowledgeError as exc:
        raise ConfigError(f"{prefix}model: {exc}") from exc


def _reranker(folder: Path) -> Reranker:
    from rag.rerank import CrossEncoderReranker

    try:
        return CrossEncoderReranker.load(folder)
    except KnowledgeError as exc:
        raise ConfigError(f"knowledge.reranker: {exc}") from exc


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
        retention = Retention(settings.retention_days) if settings.retention_days else None
        return DatabaseJournal(Database(settings), prompts, retention)
    except JournalError as exc:
        raise ConfigError(str(exc)) from exc
