"""Classifiers and the runtimes and taxonomies that they need, loaded as a configuration says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.taxonomy import SHIPPED_MODEL, SHIPPED_RESPONSES, SHIPPED_SPECIALISTS, TAXONOMY, Taxonomy
from classifier.weights import is_fetched
from guard.absent import UNJUDGED_TAXONOMY
from guard.assemble_encoders import Encoders, is_there, naming
from guard.choosing import OtherClassifier, Taxonomies
from guard.config import Config
from guard.errors import ConfigError
from guard.fields import SHIPPED
from guard.specialists import ByLanguage, ExplainerByLanguage
from guard.types import ExchangeJudge, Explainer

if TYPE_CHECKING:
    from classifier.chosen import Choice as RuntimeChoice
    from classifier.encoder import Encoder
    from classifier.exported import ExportCache
    from classifier.model import TierClassifier


_log = logging.getLogger("airlock")


def load_explainer(config: Config, judge: TierClassifier | ByLanguage) -> Explainer:
    """What says why verdicts are as they are, with the labelled examples in the folder of the model that gave them.

    Raises:
        ConfigError: the examples are damaged, or of another adapter.
    """
    default = judge.default if isinstance(judge, ByLanguage) else judge
    explainer = _explainer(config, None, default)
    if not isinstance(judge, ByLanguage):
        return explainer
    others = {language: _explainer(config, language, classifier) for language, classifier in judge.specialists.items()}
    return ExplainerByLanguage(judge, explainer, others)


def _explainer(config: Config, language: str | None, classifier: TierClassifier) -> Explainer:
    from classifier.examples import Examples
    from classifier.why import Explainer as Why

    section, folder, _ = _model(config, language)
    with naming(f"{section}.model"):
        examples = Examples.load(folder, classifier.taxonomy)
    return Why(classifier, examples, budget=config.classifier.explain_tokens)


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
    return _tier_classifier(*_model(config), config, encoders, limited=limited)


def load_judge(config: Config, encoders: Encoders, *, limited: bool = True) -> TierClassifier | ByLanguage:
    """The tier classifier, with those of single languages before it where the configuration names some.

    Args:
        config: names the models.
        encoders: lend them the encoders.
        limited: as of `load_classifier`.

    Raises:
        ConfigError: as of `load_classifier`, also of a language's; or a language's has another taxonomy.
    """
    default = load_classifier(config, encoders, limited=limited)
    specialists = {}
    for language in config.classifier.languages:
        specialist = _specialist(config, language, encoders, limited=limited)
        if specialist is None:
            continue
        own, common = specialist.taxonomy, default.taxonomy
        if own.version != common.version:
            raise ConfigError(
                f"classifier.languages.{language}.model: its taxonomy {own.name!r} has version {own.version}, that of "
                f"`classifier.model` {common.version}; verdicts of both must mean the same, so take a model with the "
                f"same {TAXONOMY}"
            )
        specialists[language] = specialist
    asked_from = {language: config.classifier.languages[language].asked_from for language in specialists}
    return ByLanguage(default, specialists, asked_from) if specialists else default


def _specialist(config: Config, language: str, encoders: Encoders, *, limited: bool) -> TierClassifier | None:
    """The classifier of a language; None, with a line in the log, where it is not required and cannot be had."""
    section, folder, encoder = _model(config, language)
    required, runtime = config.classifier.languages[language].required, config.classifier.runtime
    if not (required or is_there(f"{section}.encoder", encoder)):
        _log.info(
            "texts in %r are judged by `classifier.model`, for their own model's encoder, %s, is not there%s",
            language,
            encoder,
            ": run `airlock model fetch`" if is_fetched(encoder) else "",
        )
        return None
    exported = _exported(section, folder, encoder, config, limited=limited)
    if exported is None and not required and runtime not in ("auto", "torch"):
        _log.info(
            "texts in %r are judged by `classifier.model`, for `classifier.runtime` is %s and their own model has no "
            "export: `airlock export --language %s` makes one",
            language,
            runtime,
            language,
        )
        return None
    return exported or _in_torch(section, folder, encoder, config, encoders, limited=limited)


def load_other(config: Config, name: str, encoders: Encoders, *, limited: bool = True) -> TierClassifier:
    """A classifier of some requests, on the encoder that the configuration names, or else its own folder.

    Args:
        config: names the model.
        name: of the one of `classifiers`.
        encoders: lend it the encoder.
        limited: as of `load_classifier`.

    Raises:
        ConfigError: the model is missing, damaged, or of another encoder, or its encoder is missing or damaged.
    """
    return _tier_classifier(*_model(config, other=name), config, encoders, limited=limited)


def _tier_classifier(
    section: str, folder: Path, encoder: str, config: Config, encoders: Encoders, *, limited: bool
) -> TierClassifier:
    exported = _exported(section, folder, encoder, config, limited=limited)
    return exported or _in_torch(section, folder, encoder, config, encoders, limited=limited)


def _exported(section: str, folder: Path, encoder: str, config: Config, *, limited: bool) -> TierClassifier | None:
    from classifier.chosen import open_exported

    choice, limit = _runtime_choice(section, config), _limit(config, limited=limited)
    with naming(f"{section}.model"):
        return open_exported(folder, encoder, lambda: _encoder_sha256(section, encoder), choice, max_tokens=limit)


def _in_torch(
    section: str, folder: Path, encoder: str, config: Config, encoders: Encoders, *, limited: bool
) -> TierClassifier:
    from classifier.model import TierClassifier

    lent = encoders.get(f"{section}.encoder", encoder)
    with naming(f"{section}.model"):
        return TierClassifier.load(folder, lent, max_tokens=_limit(config, limited=limited))


def _limit(config: Config, *, limited: bool) -> int | None:
    return config.classifier.max_tokens if limited else None


def load_torch_classifier(
    config: Config, language: str | None = None, other: str | None = None
) -> tuple[Encoder, TierClassifier]:
    """The tier classifier in PyTorch whatever runtime the configuration names, of texts of any length, and its encoder.

    Args:
        config: names the model.
        language: of the specialist that is meant; without it and `other`, `classifier.model` is.
        other: name of one of `classifiers`, where that is meant.

    Raises:
        ConfigError: the model is missing, damaged, or of another encoder; or the language has none.
    """
    from classifier.model import TierClassifier

    section, folder, name = _model(config, language, other)
    encoder = Encoders(config).get(f"{section}.encoder", name)
    with naming(f"{section}.model"):
        return encoder, TierClassifier.load(folder, encoder)


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
    with naming("output.responses.model"):
        name = settings.encoder or ClassifierSettings.load(folder).encoder
        encoder = encoders.get("output.responses.encoder", name)
        return ResponseClassifier.load(folder, encoder, max_tokens=config.classifier.max_tokens)


def export_cache(
    config: Config, encoder: Encoder, language: str | None = None, other: str | None = None
) -> ExportCache:
    """Where exports of a classifier are; which is meant as of `load_torch_classifier`."""
    from classifier.exported import ExportCache

    return ExportCache(config.classifier.exports, _model(config, language, other)[1], encoder.sha256)


def model_folders(config: Config) -> list[Path]:
    """The folders of all classifiers that a configuration names, that of `classifier.model` first."""
    of_languages = [_model(config, language)[1] for language in config.classifier.languages]
    return [_model(config)[1], *of_languages, *map(_beside, config.classifiers.values())]


def _model(config: Config, language: str | None = None, other: str | None = None) -> tuple[str, Path, str]:
    """The section of a classifier, its folder and the setting of its encoder."""
    asked = config.classifier
    encoder: str | None
    if other is not None:
        section, beside = f"classifiers.{other}", config.classifiers[other]
        folder, encoder = _beside(beside), beside.encoder
    elif language is None:
        section, folder, encoder = "classifier", asked.model or SHIPPED_MODEL, asked.encoder
    elif language in asked.languages:
        specialist = asked.languages[language]
        section, encoder = f"classifier.languages.{language}", specialist.encoder
        folder = SHIPPED_SPECIALISTS[language] if specialist.model == SHIPPED else specialist.model
    else:
        raise ConfigError(f"classifier.languages has no {language!r}; it has: {', '.join(asked.languages) or 'none'}")
    return section, folder, _encoder_of(section, folder, encoder)


def _beside(other: OtherClassifier) -> Path:
    """The folder of one of `classifiers`."""
    return SHIPPED_MODEL if other.model == SHIPPED else other.model


def _encoder_of(section: str, folder: Path, named: str | None) -> str:
    """The setting of a model's encoder: the one that is named, or else the one of its folder."""
    from classifier.settings import ClassifierSettings

    with naming(f"{section}.model"):
        return named or ClassifierSettings.load(folder).encoder


def _encoder_sha256(section: str, name: str) -> str:
    from classifier.weights import encoder_path, encoder_sha256

    with naming(f"{section}.encoder"):
        return encoder_sha256(name, encoder_path(name))


def _runtime_choice(section: str, config: Config) -> RuntimeChoice:
    """Which runtime the configuration asks for: of models that were perhaps never exported, what is there."""
    from classifier.chosen import Choice as RuntimeChoice

    asked = config.classifier
    choice = RuntimeChoice(asked.runtime, asked.precision, asked.exports, asked.threads)
    if section == "classifier" or choice.runtime == "torch":
        return choice
    return replace(choice, runtime="auto", precision="auto")


def load_taxonomy(config: Config) -> Taxonomy | Taxonomies:
    """The taxonomies of all classifiers, without the classifiers.

    Raises:
        ConfigError: a model's folder has none.
    """
    if config.classifier.kind == "none":
        return UNJUDGED_TAXONOMY
    folders = {f"classifiers.{name}.model": _beside(other) for name, other in config.classifiers.items()}
    found = []
    for setting, folder in {"classifier.model": config.classifier.model or SHIPPED_MODEL, **folders}.items():
        with naming(setting):
            found.append(Taxonomy.load(folder / TAXONOMY))
    return together(found[0], found[1:])


def together(taxonomy: Taxonomy, others: Sequence[Taxonomy]) -> Taxonomy | Taxonomies:
    """The taxonomy of the classifier, and of those beside it if there are any."""
    return Taxonomies((taxonomy, *others)) if others else taxonomy
