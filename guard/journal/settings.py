"""The `journal` section: where decisions are written down, and what of a prompt is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from guard.fields import PASSWORD, Seconds, Section, Variable
from guard.rules import YAML_OFF

Kept = Literal["off", "hashed", "redacted", "full"]
"""What is kept of a prompt."""


class JournalSection(Section):
    """Where decisions are written down."""

    path: Path | None = Field(Path("airlock.db"), description="SQLite file; null keeps no journal.")
    url: str | None = Field(
        None,
        description="PostgreSQL in place of the file: postgresql://user@host/database, the password in PGPASSWORD.",
    )
    prompts: Annotated[Kept, YAML_OFF] = Field(
        "off", description="What is kept of the judged text; `redacted` masks numbers, addresses, accounts and keys."
    )
    prompt_key_env: Variable | None = Field(
        None, description="Environment variable with a key for `hashed`; without one, a guessed text can be confirmed."
    )
    key_env: Variable | None = Field(
        None,
        description="Environment variable with a key for the chain of records; older keys behind it, after a space.",
    )
    retention_days: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Records older than that are deleted once a day; null keeps them."
    )
    sync: bool = Field(
        False,
        description="Wait for the disk with each decision, so that none is lost by a power cut either; for the file.",
    )
    deadline_s: Seconds = 10.0
    on_error: Literal["refuse", "continue"] = Field(
        "refuse", description="When a decision cannot be written: refuse the request, or answer and log an alarm."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.url is not None and self.path is not None and "path" in self.model_fields_set:
            raise ValueError(f"path = {self.path} and url = {self.url}: a journal is at one place; remove one of them")
        return self

    @field_validator("url")
    @classmethod
    def _postgres(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not re.match(r"postgres(?:ql)?://", url):
            raise ValueError("need an address such as postgresql://user@host/database; a file goes to journal.path")
        if PASSWORD.search(url):
            raise ValueError("a password has no place in a configuration; put it into PGPASSWORD or a passfile")
        return url

    @property
    def kept(self) -> bool:
        """Whether there is a journal."""
        return self.path is not None or self.url is not None
