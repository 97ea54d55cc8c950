"""What the sections of the configuration are made of: their base, and the types that several of them use."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
OpenAICategory = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]


def _http(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", url):
        raise ValueError("need an http:// or https:// address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


Address = Annotated[str, AfterValidator(_http)]


class Section(BaseModel):
    """One section: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
