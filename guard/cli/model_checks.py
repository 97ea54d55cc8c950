"""What `airlock doctor` tries of the models and the knowledge base: each is loaded and asked something harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classifier.model import TierClassifier
    from guard.assemble_encoders import Encoders
    from guard.config import Config
    from rag.types import Document, Evidence

# Which of both is missing the log says; a runtime that was asked for keeps PyTorch out.
_ABSENT = (
    ", since their own model is not there: `airlock model fetch`, then for an exported runtime "
    "`airlock export --language "
)


def check_classifier(settings: Config, encoders: Encoders) -> str:
    """What the classifiers say of a harmless question."""
    from guard.assemble_classifier import load_judge, load_other
    from guard.specialists import ByLanguage

    if settings.classifier.kind == "none":
        return "off: every text is unjudged"
    judge = load_judge(settings, encoders)
    of_languages = judge.specialists if isinstance(judge, ByLanguage) else {}
    said = [_judged(judge.default if isinstance(judge, ByLanguage) else judge)]
    said += [f"for texts in {language}: {_judged(each)}" for language, each in of_languages.items()]
    absent = settings.classifier.languages.keys() - of_languages.keys()
    said += [f"for texts in {language}: the same{_ABSENT}{language}`" for language in sorted(absent)]
    others = {name: load_other(settings, name, encoders) for name in settings.classifiers}
    said += [f"for the requests of classifiers.{name}: {_judged(each)}" for name, each in others.items()]
    return "; ".join(said)


def check_knowledge(settings: Config, encoders: Encoders) -> str:
    """How much the knowledge base holds, and how much of it is never found.

    Raises:
        KnowledgeError: it is damaged, or none of its documents is found.
    """
    from guard.assemble_knowledge import load_knowledge, load_search, load_sentences
    from rag.types import KnowledgeError

    if settings.knowledge.kind == "none":
        return "off"
    sentences = load_sentences(settings, encoders)
    knowledge = load_knowledge(settings, load_search(settings, encoders, sentences))
    faults = knowledge.verify()
    if faults:
        raise KnowledgeError(f"{len(faults)} faults, the first: {faults[0]}")
    with knowledge.view() as view:
        documents, found = view.manifest.documents, view.count(settings.knowledge.where)
    out = "expired, without a sentence to quote, or without the metadata entries that `knowledge.where` asks for"
    if documents and not found:
        raise KnowledgeError(
            f"all {documents} documents are {out}; renew `expires`, add paragraphs, or change the setting"
        )
    left_out = f"; {documents - found} of the documents are {out}" if found < documents else ""
    return f"{documents} documents, {view.manifest.passages} passages, all sound{left_out}"


def check_interpretation(settings: Config, encoders: Encoders) -> str:
    """Whether a plain question is answered in quotes."""
    from guard.assemble_knowledge import gate, load_interpreter, load_sentences
    from rag.grounding import ground

    interpreter = load_interpreter(settings, load_sentences(settings, encoders), encoders)
    evidence, documents = _example()
    answer = interpreter.answer("When does the library open?", evidence, documents)
    kept = ground(answer, evidence, documents, lambda _: True, gate=gate(settings)).citations
    return f"{settings.interpretation.kind}, {'answers' if kept else 'does not answer'} a plain question in quotes"


def check_gate(settings: Config, encoders: Encoders) -> str:
    """How well a sentence supports itself."""
    from guard.assemble_knowledge import load_support

    support = load_support(settings, encoders)
    if support is None:
        return "no support model: only quotes stay"
    (judgement,) = support.support([("The library opens at nine.", "The library opens at nine.")])
    return f"a quote has support {judgement.supported:.2f}, a sentence stays from {settings.grounding.supported}"


def check_responses(settings: Config, encoders: Encoders) -> str:
    """What the response check calls a harmless answer."""
    from classifier.types import Exchange
    from guard.assemble_classifier import load_responses
    from guard.response_check import AnswerCheck

    if not settings.output.responses.asked:
        return "off"
    judge = load_responses(settings, encoders)
    AnswerCheck(settings.output.responses, judge)  # knows each label that has a mode
    if judge is None:
        return "no model: only copied words are looked for"
    (verdict,) = judge.classify([Exchange("At 100 °C.", "What is the boiling point of water?")])
    return f"{verdict.model} calls a harmless answer {verdict.category}"


def _judged(classifier: TierClassifier) -> str:
    (verdict,) = classifier.classify(["What is the boiling point of water?"])
    return f"{verdict.model} on {classifier.runtime.name} calls a harmless question {verdict.tier.label}"


def _example() -> tuple[list[Evidence], dict[str, Document]]:
    from rag.types import Document, Evidence, Passage

    text = "The library opens at nine on weekdays. Dogs stay outside."
    document = Document("library", "example", "Library", text, {})
    passage = Passage("library#0", document.id, document.version, 0, len(text), text)
    return [Evidence(passage, 1.0)], {document.id: document}
