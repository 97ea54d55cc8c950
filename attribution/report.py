"""What an audit found, as one file: JSON with a schema, read strictly."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from attribution.types import AttributionError, HeadId, Method, ReportError
from attribution.weights import first_line
from attribution.whole import write_whole

SCHEMA_VERSION = 1
FEWEST = 5  # prompts, from which on an interval over them says something
Read = TypeVar("Read", bound=BaseModel)
SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Grid = Annotated[
    tuple[tuple[float | None, ...], ...], Field(description="layers × heads; null where a head was not computed")
]


def _head(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return HeadId.parse(value)
    except AttributionError as exc:
        raise ValueError(str(exc)) from exc


Head = Annotated[
    HeadId,
    BeforeValidator(_head),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\.\d+$", "description": "layer.head, both from 0"}),
]


class Part(BaseModel):
    """A part of a report: frozen, with no keys but its own, and no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(Part):
    """A figure with its 95 % interval; null where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Model(Part):
    """The model that was audited."""

    name: str = Field(description="Of its folder; never a path.")
    family: str = Field(description="`model_type` of its configuration.")
    layers: Count
    heads: Count = Field(description="Query heads a layer.")
    kv_heads: Count
    d_head: Count
    width: Count
    parameters: Count
    weights_sha256: SHA256
    dtype: str
    device: str


class Prompts(Part):
    """The prompts, by hash: their texts are not in a report."""

    file: str
    sha256: SHA256
    count: Count
    template: str
    categories: dict[str, Natural] = Field(default_factory=dict, description="Prompts of each category.")


class Settings(Part):
    """How the audit was done."""

    method: Method
    epsilon: float | None = Field(description="Null for the means, which have none.")
    r_main: Count
    group_size: Natural = Field(description="S of Sahara; 0 if it was left out.")
    seed: int
    screen: Count | None = Field(None, description="Heads that an estimate chose to be computed exactly; null: all.")


class PerPrompt(Part):
    """Ships of every prompt: float32, little-endian, base64; NaN where a head was not computed."""

    shape: tuple[Count, Count, Count] = Field(description="prompts, layers, heads")
    float32: str

    @classmethod
    def pack(cls, scores: NDArray[np.float64]) -> Self:
        """From (prompts, layers, heads)."""
        prompts, layers, heads = scores.shape
        return cls(
            shape=(prompts, layers, heads), float32=base64.b64encode(scores.astype("<f4").tobytes()).decode("ascii")
        )

    def unpack(self) -> NDArray[np.float64]:
        """To (prompts, layers, heads)."""
        return np.frombuffer(base64.b64decode(self.float32), dtype="<f4").astype(np.float64).reshape(self.shape)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            held = len(base64.b64decode(self.float32, validate=True))
        except ValueError as exc:
            raise ValueError("float32 is not base64") from exc
        if held != 4 * self.shape[0] * self.shape[1] * self.shape[2]:
            raise ValueError(f"float32 holds {held} bytes, which is not 4 for each of shape {self.shape}")
        return self


class Ranked(Part):
    """A head's place in the ranking by mean Ships."""

    rank: Count
    head: Head
    score: float = Field(description="Mean Ships, nats.")
    low: float
    high: float
    rank_low: Count = Field(description="Best rank in 95 of 100 resamples of the prompts.")
    rank_high: Count
    share: Share = Field(description="Of the sum of the scores of all heads that were computed.")
    stands_out: bool = Field(
        description=f"Its interval lies above the noise floor's `chance`; of fewer than {FEWEST} prompts, none does."
    )


class NoiseFloor(Part):
    """What a head scores that is nothing special; see `attribution.statistics.Floor`."""

    median: float
    p95: float
    chance: float


class Ships(Part):
    """Ships over the prompts, in nats."""

    mean: Grid
    median: Grid
    error: Grid = Field(description="Standard error of the mean.")
    low: Grid = Field(description="Lower end of the mean's 95 % interval.")
    high: Grid
    ranking: tuple[Ranked, ...] = Field(description="The first ones, best first.")
    noise: NoiseFloor
    effective_heads: Figure = Field(
        description="Exponential of the entropy of the normalised means, of the heads that were computed."
    )
    per_prompt: PerPrompt | None = None


class Against(Part):
    """How much more heads matter on the prompts than on harmless ones; see `attribution.statistics.Contrast`."""

    prompts: Prompts
    difference: Grid = Field(description="Mean Ships on the prompts, less that on the harmless ones, nats.")
    chance: float = Field(description="What the largest difference is in 95 of 100 random divisions of all prompts.")
    heads: tuple[Head, ...] = Field(description="Heads above `chance`, largest difference first.")


class ParameterShare(Part):
    """How small a part of the model the first heads of the ranking are."""

    heads: Count
    parameters: Natural
    share: Share


class SaharaStep(Part):
    """One step of Sahara: the head that was added, and the angle of each candidate with the group so far."""

    head: Head
    degrees: float
    all: Grid


class Halves(Part):
    """How far random halves of the prompts agree; see `attribution.statistics.Halves`."""

    spearman: Figure
    overlap: Figure
    top: Count
    by_chance: Share
    splits: Count


class TemplatePair(Part):
    """How far two templates agree on the same prompts."""

    one: str
    other: str
    spearman: float | None
    overlap: Share


class Stability(Part):
    """Whether other prompts, or another template, would have named the same heads."""

    halves: Halves | None = Field(None, description="Null with fewer than four prompts.")
    templates: tuple[TemplatePair, ...] = ()


class AsrPoint(Part):
    """Attack success rate without the first k heads."""

    k: Natural
    heads: tuple[Head, ...]
    asr: Figure
    random: Figure | None = Field(None, description="The same without k random heads, mean over the draws.")
    random_draws: Natural = 0


class Behaviour(Part):
    """What the model does without its heads."""

    judge: str
    weak_judge: bool
    prompts_sha256: SHA256
    prompts: Count
    ranking: Literal["ships", "sahara"] = Field(description="Which ranking the heads were taken from.")
    points: Annotated[tuple[AsrPoint, ...], Field(min_length=1)]


class Screen(Part):
    """How well an estimate chose the heads that were computed exactly."""

    chosen: Count
    sampled: Natural = Field(description="Heads drawn at random from the others, and computed too.")
    missed: Natural = Field(description="Of the sampled, those that belong to the exact top.")
    top: Count
    spearman: float | None = Field(description="Of estimate and exact score.")

    @property
    def miss_rate(self) -> float | None:
        """Share of the sampled heads that belong to the exact top; None without a sample."""
        return self.missed / self.sampled if self.sampled else None


class Check(Part):
    """A self-check: what was measured, and what it must not exceed, or must."""

    value: float
    limit: float
    passed: bool


class Checks(Part):
    """Self-checks at the start of the run."""

    base_logits: Check = Field(description="Largest difference from the stock model's logits; at most the limit.")
    causal_leak: Check = Field(description="Change of an earlier logit by a later token; at most the limit.")
    ablation_effect: Check = Field(description="Change of the logits by an ablation; above the limit.")


class AuditReport(Part):
    """What an audit found, and all that is needed to repeat, compare and judge it."""

    schema_version: Literal[1] = 1
    model: Model
    prompts: Prompts
    settings: Settings
    ships: Ships
    parameter_shares: tuple[ParameterShare, ...] = ()
    generalized: Grid | None = Field(None, description="Generalized Ships of single heads, degrees.")
    sahara: tuple[SaharaStep, ...] = ()
    stability: Stability = Stability()
    against: Against | None = None
    behaviour: Behaviour | None = None
    screen: Screen | None = None
    checks: Checks | None = None
    provenance: dict[str, JsonValue] = Field(default_factory=dict, description="Commit, machine, time, libraries.")
    seconds: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        shape = (self.model.layers, self.model.heads)
        ships = self.ships
        grids = {name: getattr(ships, name) for name in ("mean", "median", "error", "low", "high")}
        grids |= {f"sahara step {at}": step.all for at, step in enumerate(self.sahara, 1)}
        if self.generalized is not None:
            grids["generalized"] = self.generalized
        if self.against is not None:
            grids["against"] = self.against.difference
        for name, grid in grids.items():
            if len(grid) != shape[0] or any(len(row) != shape[1] for row in grid):
                raise ValueError(f"{name} does not have {shape[0]} layers of {shape[1]} heads")
        if ships.per_prompt is not None and ships.per_prompt.shape != (self.prompts.count, *shape):
            raise ValueError(f"per_prompt has shape {ships.per_prompt.shape}, not {(self.prompts.count, *shape)}")
        named = [*(row.head for row in ships.ranking), *(step.head for step in self.sahara)]
        if self.against is not None:
            named += self.against.heads
        if self.behaviour is not None:
            named += [head for point in self.behaviour.points for head in point.heads]
        for head in named:
            if head.layer >= shape[0] or head.head >= shape[1]:
                raise ValueError(f"head {head} is not in a model of {shape[0]} layers of {shape[1]} heads")
        return self

    @property
    def computed(self) -> int:
        """How many heads were computed: what shares and the effective number of heads are of."""
        return sum(value is not None for row in self.ships.mean for value in row)

    @property
    def whole(self) -> bool:
        """Whether every head was computed."""
        return self.computed == self.model.layers * self.model.heads

    @property
    def few(self) -> bool:
        """Whether the prompts are too few for intervals, and so for saying that a head stands out."""
        return self.prompts.count < FEWEST

    def top(self, count: int) -> list[HeadId]:
        """The first heads of the ranking."""
        return [row.head for row in self.ships.ranking[:count]]

    def standing_out(self) -> list[HeadId]:
        """Heads whose interval lies above the noise floor, best first; the ranking may name fewer."""
        if self.few:
            return []
        heads = [
            HeadId(layer, head)
            for layer, row in enumerate(self.ships.low)
            for head, low in enumerate(row)
            if low is not None and low > self.ships.noise.chance
        ]
        return sorted(heads, key=lambda head: -(self.ships.mean[head.layer][head.head] or 0.0))


def save_report(report: BaseModel, path: Path) -> None:
    """Write a report, a comparison or a fingerprint as JSON, making its folder; whole or not at all.

    Raises:
        ReportError: it cannot be written.
    """
    write_text(path, report.model_dump_json(indent=1) + "\n")


def load_report(path: Path) -> AuditReport:
    """Read a report.

    Raises:
        ReportError: there is none, it is no report, or one of another version.
    """
    return read_part(path, AuditReport, "report", "write one with `airlock audit heads --out`", SCHEMA_VERSION)


def read_part(path: Path, kind: type[Read], what: str, way_out: str, version: int) -> Read:
    """Read a saved part of this package.

    Args:
        path: The file.
        kind: What it holds.
        what: Its name in messages.
        way_out: What to do if there is none.
        version: The `schema_version` that is read.

    Raises:
        ReportError: it cannot be read.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ReportError(f"{what} {path} does not exist; {way_out}") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise ReportError(f"{what} {path} cannot be read: {first_line(exc)}; {way_out}") from exc
    if not isinstance(data, Mapping) or "schema_version" not in data:
        raise ReportError(f"{what} {path} is none: it has no schema_version; {way_out}")
    if data["schema_version"] != version:
        raise ReportError(
            f"{what} {path} has schema_version {data['schema_version']!r}, this is read by version {version}; {way_out}"
        )
    try:
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as exc:
        error = exc.errors()[0]
        place = ".".join(map(str, error["loc"])) or "as a whole"
        message = error["msg"].removeprefix("Value error, ")
        raise ReportError(f"{what} {path} is damaged at {place}: {message}; {way_out}") from exc


def write_text(path: Path, text: str) -> None:
    """Write a file, making its folder; whole or not at all.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as exc:
        raise ReportError(f"{path} cannot be written: {first_line(exc)}; name another file") from exc


def report_schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    schema = AuditReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
