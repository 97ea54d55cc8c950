"""The knowledge base, what answers from it and the citation gate, loaded as a configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from classifier.types import MPNET
from guard.assemble_encoders import Encoders, is_there, naming
from guard.config import Config
from guard.errors import ConfigError
from guard.fields import NO_ENCODER, SHIPPED
from guard.knowledge import Endpoint, Generative, Reader, Similarity
from guard.language import Detector
from guard.pausing import PausingSupport
from guard.types import Protector
from rag.types import Gate

if TYPE_CHECKING:
    from rag.answer import Answerer
    from rag.interpret import InterpretationModel
    from rag.pairs import PairReader
    from rag.related import Related
    from rag.store import KnowledgeBase
    from rag.types import Encoder as SentenceVectors
    from rag.types import Reranker, SupportModel
    from rag.write import Writer

P = TypeVar("P", bound="PairReader")


def load_sentences(config: Config, encoders: Encoders) -> SentenceVectors:
    """The sentence encoder for all languages, by which sentences are chosen, and passages found too.

    Raises:
        ConfigError: its encoder is missing, damaged, or not the expected one.
    """
    return _sentence_encoder("knowledge.encoder", config.knowledge.encoder, encoders)


def load_search(
    config: Config, encoders: Encoders, sentences: SentenceVectors, *, anew: bool = False
) -> SentenceVectors:
    """What the vectors of the knowledge base are made with: `sentences`, or these and an encoder for English beside.

    A base says which it was made with. Where its second encoder is not at hand, it is searched with the first alone.

    Args:
        config: names the base.
        encoders: lend the second encoder its weights.
        sentences: the encoder for all languages; see `load_sentences`.
        anew: whether a base is made, whatever is there now.

    Raises:
        ConfigError: the second encoder is missing or damaged, or named for a base that was made without one.
    """
    from rag.paired import AbsentEncoder, PairedEncoder, parts_of
    from rag.schema import SAMPLE, find_manifest

    setting, asked = "knowledge.english_encoder", config.knowledge.english_encoder
    named = None if asked == NO_ENCODER else asked
    with naming(setting):
        manifest = None if anew else find_manifest(config.knowledge.path or SAMPLE)
        made_with = parts_of(manifest.encoder)[1] if manifest else None
        if manifest and made_with is None and named:
            raise ConfigError(
                f"{setting} is {named!r}, but the knowledge base was made without one; build it again, or leave it out"
            )
        if made_with and asked is None and is_there(setting, MPNET):
            named = MPNET if encoders.get(setting, MPNET).sha256 == made_with else None
        if named:
            return PairedEncoder(sentences, _sentence_encoder(setting, named, encoders), Detector(()).is_english)
        if manifest and made_with:
            absent = AbsentEncoder(made_with, manifest.dimension - sentences.dimension - 1)
            return PairedEncoder(sentences, absent, lambda _: False)
        return sentences


def _sentence_encoder(setting: str, name: str, encoders: Encoders) -> SentenceVectors:
    from rag.pooled import sentence_encoder

    encoder = encoders.get(setting, name)
    with naming(setting):
        return sentence_encoder(encoder.path, encoder.lend(), encoder.tokenizer, encoder.sha256)


def load_knowledge(config: Config, sentences: SentenceVectors) -> KnowledgeBase:
    """The knowledge base, with its reranker if one is named.

    Raises:
        ConfigError: there is none, or it is missing, damaged, or built with another encoder.
    """
    if config.knowledge.kind == "none":
        raise ConfigError("knowledge.kind is 'none', so there is no knowledge base; name one, or leave it out")
    from rag.store import SAMPLE, KnowledgeBase

    reranker = _reranker(config.knowledge.reranker) if config.knowledge.reranker else None
    with naming("knowledge.path"):
        return KnowledgeBase.open(config.knowledge.path or SAMPLE, sentences, reranker=reranker)


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
    with naming("knowledge.path"):
        if not make:
            DatabaseFile.find(config.knowledge.path)
        return Writer(config.knowledge.path, sentences)


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
        load_knowledge(config, load_search(config, encoders, sentences)),
        load_interpreter(config, sentences, encoders),  # last of the models: one that generates sets torch's threads
        k=knowledge.passages,
        where=knowledge.where,
        mode=knowledge.mode,
        support=None if support is None else PausingSupport(support),
        gate=gate(config),
        related=load_related(sentences),
    )


def load_related(sentences: SentenceVectors) -> Related:
    """What finds quotes on the topic where nothing answers for sure, by the encoder for all languages."""
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
        sentences: the encoder for all languages.
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

            with naming("interpretation.model"):
                return GenerativeInterpreter.load(
                    settings.model, threads=settings.threads, max_tokens=settings.max_tokens, base=settings.base
                )
        case Endpoint():
            from guard.endpoint_interpreter import EndpointInterpreter

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
    """The folder of the support model; None without one. Of the two that ship, the larger one where its encoder is.

    Raises:
        ConfigError: nobody may look where that encoder would be.
    """
    asked = config.grounding
    if asked.support_model != SHIPPED:
        return asked.support_model
    from rag.support import SHIPPED as SMALL
    from rag.support import SHIPPED_LARGE as LARGE

    return LARGE if asked.support_encoder is None and is_there("grounding.support_model", MPNET) else SMALL


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

    with naming(f"{prefix}model"):
        name = encoder or PairSettings.load(folder, kind.task).encoder
        return kind.load(folder, encoders.get(f"{prefix}encoder", name))


def _reranker(folder: Path) -> Reranker:
    from rag.rerank import CrossEncoderReranker

    with naming("knowledge.reranker"):
        return CrossEncoderReranker.load(folder)
