"""Sections of the configuration: the knowledge base, the model that answers from it, and the citation gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from classifier.types import E5_SMALL
from guard.fields import SHIPPED, Address, Count, Seconds, Section, Share, Variable, Word, one_or_many
from rag.mode import DEFAULT_MODE, Mode
from rag.types import DEFAULT_GATE, PROTECTIVE_FROM


class Knowledge(Section):
    """The knowledge base that grounds answers."""

    kind: Literal["base", "none"] = Field("base", description="`none` loads none; then no rule may ground or protect.")
    path: Path | None = Field(None, description="Folder written by `airlock kb`; the shipped sample by default.")
    encoder: str = E5_SMALL
    english_encoder: str | None = Field(
        None,
        description="A second one, by which questions in English are compared too: folder, package:NAME/PATH or "
        "fetched:NAME. Name it when the base is made; then it is used where it is there, unless this says none.",
    )
    passages: Count = Field(3, description="Passages looked at for an answer.")
    mode: Mode = Field(DEFAULT_MODE, description="Find them by vectors (dense), by words (bm25) or by both (hybrid).")
    where: dict[str, Annotated[tuple[str, ...], one_or_many(str)]] = Field(
        default_factory=dict, description="Metadata entries of the documents that may answer, each with its values."
    )
    reranker: Path | None = Field(
        None, description="Folder of a cross-encoder that puts them in order; none by default."
    )
    protective_from: Share = Field(
        PROTECTIVE_FROM, description="Similarity from which a protective document is quoted beside a refusal."
    )
    deadline_s: Seconds = 10.0


class Similarity(Section):
    """The sentences that are most similar to the question."""

    kind: Literal["similarity"] = "similarity"
    workers: Count = Field(1, description="Questions answered at once; each uses `classifier.threads` cores.")


class Reader(Section):
    """The sentences that a trained evidence reader finds."""

    kind: Literal["reader"] = "reader"
    model: Path = Field(SHIPPED, description="Folder written by `airlock train reader`, or `shipped`.")
    encoder: str | None = Field(
        None, description="Folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    workers: Count = Field(1, description="Questions answered at once; each uses `classifier.threads` cores.")


class Generative(Section):
    """A language model in this process."""

    kind: Literal["generative"] = "generative"
    model: Path = Field(description="Folder written by `airlock train interpreter`.")
    base: Path | None = Field(None, description="Folder of its language model; the one it names by default.")
    threads: Count = Field(1, description="Of torch in this process, the classifier's included.")
    max_tokens: Count = Field(400, description="Of an answer; the sentence that it ends in is left out.")
    workers: Count = Field(1, description="Questions answered at once; each uses `threads` cores.")


class Endpoint(Section):
    """A language model behind an OpenAI-compatible server; `knowledge.deadline_s` limits the whole answer."""

    kind: Literal["endpoint"] = "endpoint"
    base_url: Address = Field(description="Such as http://127.0.0.1:8000/v1; /chat/completions is asked below it.")
    model_name: Word = Field(description="The model that the server is asked for.")
    api_key_env: Variable | None = Field(
        None, description="Environment variable with the key to send; none by default."
    )
    max_tokens: Count = Field(400, description="Of an answer; the sentence that it ends in is left out.")
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    connect_timeout_s: Seconds = 5.0
    max_response_bytes: Count = 1024 * 1024
    workers: Count = Field(8, description="Questions asked at once.")


Interpretation = Annotated[Similarity | Reader | Generative | Endpoint, Field(discriminator="kind")]


class Grounding(Section):
    """The citation gate: how strict it is, and how much it reads; see `rag.types.Gate`."""

    support_model: Path | None = Field(
        None,
        description="Judges paraphrases: folder written by `airlock train support`, or `shipped`: the larger one after "
        "`airlock model fetch`. Quotes need none.",
    )
    support_encoder: str | None = Field(
        None, description="Its encoder: folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    supported: Share = Field(
        DEFAULT_GATE.supported, description="Probability of a support model from which a paraphrase stays."
    )
    contradicted: Share = Field(
        DEFAULT_GATE.contradicted, description="Probability of a support model from which it is contradicted."
    )
    overlap: Share = Field(
        DEFAULT_GATE.overlap,
        description="Share of a sentence's words below which no evidence is like it; a support model reads it all "
        "the same.",
    )
    kept: Share = Field(
        DEFAULT_GATE.kept, description="Share of an answer below which what remains of it does not answer."
    )
    answer_characters: Count = DEFAULT_GATE.answer_characters
    passage_characters: Count = DEFAULT_GATE.passage_characters
    passage_sentences: Count = DEFAULT_GATE.passage_sentences
