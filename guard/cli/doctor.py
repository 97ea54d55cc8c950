"""`airlock doctor`: try every part that a configuration names, one by one, and say how each fared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    from classifier.model import TierClassifier
    from guard.config import Config
    from rag.types import Document, Evidence

app = typer.Typer()
# Which of both is missing the log says; a runtime that was asked for keeps PyTorch out.
_ABSENT = (
    ", since their own model is not there: `airlock model fetch`, then for an exported runtime "
    "`airlock export --language "
)


@app.command("doctor")
def doctor(config: ConfigFile = None, as_json: Json = False) -> None:
    """Try every part: models, knowledge base, policy, journal, upstream, address, TLS, metrics and traces.

    Exit status 1 if one is not well; where the configuration itself is not, nothing else is tried. A language model is
    asked one question.
    """
    import logging

    from guard.config import load_config

    logging.getLogger("airlock").addHandler(logging.NullHandler())  # the table says it
    loaded: list[Config] = []

    def load() -> str:
        loaded.append(load_config(config))
        return str(config or "defaults")

    found = [_try("configuration", load)]
    found += [_try(name, step) for settings in loaded for name, step in _steps(settings)]
    if as_json:
        print_json({"well": all(row["well"] for row in found), "parts": found})
    else:
        for row in found:
            typer.echo(
                f"{'ok  ' if row['well'] else 'FAIL'}  {row['part']:14} {row['milliseconds']:>8} ms  {row['says']}"
            )
    if not all(row["well"] for row in found):
        raise typer.Exit(1)


def _steps(settings: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    import asyncio

    from classifier.types import Exchange
    from guard.assemble_classifier import Encoders, load_judge, load_other, load_responses
    from guard.assemble_knowledge import (
        gate,
        load_interpreter,
        load_knowledge,
        load_search,
        load_sentences,
        load_support,
    )
    from guard.cli.server_checks import check_address, check_keys, check_metrics, check_policy, check_traces
    from guard.pinned import check_pinned
    from guard.responses import AnswerCheck
    from guard.specialists import ByLanguage
    from rag.grounding import ground
    from rag.types import KnowledgeError

    encoders = Encoders(settings)

    def classify() -> str:
        if settings.classifier.kind == "none":
            return "off: every text is unjudged"
        judge = load_judge(settings, encoders)
        of_languages = judge.specialists if isinstance(judge, ByLanguage) else {}
        said = [_judged(judge.default if isinstance(judge, ByLanguage) else judge)]
        said += [f"for texts in {language}: {_judged(each)}" for language, each in of_languages.items()]
        absent = settings.classifier.languages.keys() - of_languages.keys()
        said += [f"for texts in {language}: the same{_ABSENT}{language}`" for language in sorted(absent)]
        others = [load_other(settings, name, encoders).settings.name for name in settings.classifiers]
        said += [f"for some requests: {', '.join(others)}"] if others else []
        return "; ".join(said)

    def search() -> str:
        if settings.knowledge.kind == "none":
            return "off"
        sentences = load_sentences(settings, encoders)
        knowledge = load_knowledge(settings, load_search(settings, encoders, sentences))
        faults = knowledge.verify()
        if faults:
            raise KnowledgeError(f"{len(faults)} faults, the first: {faults[0]}")
        return f"{knowledge.manifest.documents} documents, {knowledge.manifest.passages} passages, all sound"

    def interpret() -> str:
        interpreter = load_interpreter(settings, load_sentences(settings, encoders), encoders)
        evidence, documents = _example()
        answer = interpreter.answer("When does the library open?", evidence, documents)
        kept = ground(answer, evidence, documents, lambda _: True, gate=gate(settings)).citations
        return f"{settings.interpretation.kind}, {'answers' if kept else 'does not answer'} a plain question in quotes"

    def judge() -> str:
        support = load_support(settings, encoders)
        if support is None:
            return "no support model: only quotes stay"
        (judgement,) = support.support([("The library opens at nine.", "The library opens at nine.")])
        return f"a quote has support {judgement.supported:.2f}, a sentence stays from {settings.grounding.supported}"

    def hold() -> str:
        if not settings.output.responses.asked:
            return "off"
        judge = load_responses(settings, encoders)
        AnswerCheck(settings.output.responses, judge)  # knows each label that has a mode
        if judge is None:
            return "no model: only copied words are looked for"
        (verdict,) = judge.classify([Exchange("At 100 °C.", "What is the boiling point of water?")])
        return f"{verdict.model} calls a harmless answer {verdict.category}"

    yield "policy", lambda: check_policy(settings)
    yield "classifier", classify
    yield "knowledge base", search
    if settings.knowledge.kind != "none":
        yield "interpretation", interpret
        yield "citation gate", judge
    yield "response check", hold
    yield "journal", lambda: _write_journal(settings)
    if settings.access.keys is not None:
        yield "keys", lambda: check_keys(settings)
    yield "fingerprint", lambda: check_pinned(settings.upstream)
    yield "upstream", lambda: asyncio.run(_reach(settings))
    yield "address", lambda: check_address(settings)
    yield "metrics", lambda: check_metrics(settings)
    yield "traces", lambda: asyncio.run(check_traces(settings))


def _judged(classifier: TierClassifier) -> str:
    (verdict,) = classifier.classify(["What is the boiling point of water?"])
    return f"{verdict.model} on {classifier.runtime.name} calls a harmless question {verdict.tier.label}"


def _example() -> tuple[list[Evidence], dict[str, Document]]:
    from rag.types import Document, Evidence, Passage

    text = "The library opens at nine on weekdays. Dogs stay outside."
    document = Document("library", "example", "Library", text, {})
    return [Evidence(Passage("library#0", document.id, document.version, 0, len(text), text), 1.0)], {
        "library": document
    }


def _write_journal(settings: Config) -> str:
    from guard.cli.server_checks import check_journal
    from guard.journal.database import Database

    check_journal(settings)
    if not settings.journal.kept:
        return "off"
    place = settings.journal.url or settings.journal.path
    if isinstance(place, Path) and not place.exists():
        return f"{place} is not there yet and can be written"
    Database(settings.journal).close()
    return f"{place} can be written"


async def _reach(settings: Config) -> str:
    from guard.reach import reach
    from guard.upstream import Forwarder

    forwarder = Forwarder(settings.upstream)
    try:
        status = await reach(forwarder, settings.upstream.base_url)
    finally:
        await forwarder.close()
    return f"{settings.upstream.base_url} answers GET /models with status {status}"


def _try(name: str, step: Callable[[], str]) -> dict[str, object]:
    from classifier.types import ClassifierError
    from guard.errors import AirlockError
    from rag.types import KnowledgeError

    started = time.perf_counter()
    try:
        says, well = step(), True
    except (AirlockError, ClassifierError, KnowledgeError, OSError) as exc:  # OSError: of a path that may not be seen
        says, well = str(exc), False
    return {"part": name, "well": well, "says": says, "milliseconds": round((time.perf_counter() - started) * 1000)}
