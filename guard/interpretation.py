"""The `interpretation` section: which kind of model answers from the passages found; each kind has its own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from guard.fields import SHIPPED, Address, Count, Seconds, Section, Variable, Word


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

# What is used without a setting; `Reader()` needs rag/assets/reader-e5-small, and SHIPPED a rag/assets/support-….
DEFAULT_INTERPRETATION: Similarity | Reader = Similarity()
DEFAULT_SUPPORT_MODEL: Path | None = None
