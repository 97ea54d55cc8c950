"""What a model folder says of itself beside its weights: encoder, windows, calibration, operating point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from classifier.calibration import AS_TRAINED, Calibration
from classifier.taxonomy import TAXONOMY, Taxonomy
from classifier.types import ClassifierError, Tier

_SETTINGS = "classifier.json"
Reads = Literal["texts", "exchanges"]
"""What a model was trained to read: a text alone, or an answer with what was asked."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Risks between which a text is neither surely Safe nor surely risky, at the budgets that they were chosen by.

    Attributes:
        safe_below: a Safe text is surely so below this risk.
        risky_from: a text of another tier is surely so from this risk on.
    """

    safe_below: float
    risky_from: float

    def __post_init__(self) -> None:
        if not 0.0 < self.safe_below < self.risky_from <= 1.0:
            raise ClassifierError(
                f"operating point doubt from {self.safe_below} to {self.risky_from}: need 0 < safe_below < risky_from, "
                "at most 1"
            )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become a tier; part of the model's folder, chosen on data that training did not see.

    A window is Unsafe from `unsafe` on; else not Safe from `risk` on, where risk is the sum over the tiers but Safe,
    and then the likelier of Conditionally Safe and Focused Attention: what is not sure enough to be refused is still
    not passed on. Without a `doubt`, every tier is sure.

    A text of several windows has as many chances to look risky, so it may have a point of its own.

    Attributes:
        risk: from which probability on a window is not Safe.
        unsafe: from which on it is Unsafe.
        doubt: the risks at which a tier is not sure.
        several: the point of texts that take several windows; None is the same one.
    """

    risk: float = 0.5
    unsafe: float = 0.5
    doubt: Doubt | None = None
    several: OperatingPoint | None = None

    def __post_init__(self) -> None:
        for name, value in (("risk", self.risk), ("unsafe", self.unsafe)):
            if not 0.0 < value <= 1.0:
                raise ClassifierError(f"operating point {name} = {value}: need a probability above 0, at most 1")
        if self.doubt and not self.doubt.safe_below <= self.risk <= self.doubt.risky_from:
            raise ClassifierError(
                f"operating point risk = {self.risk}: it must lie inside the doubt from {self.doubt.safe_below} to "
                f"{self.doubt.risky_from}"
            )
        if self.several and self.several.several:
            raise ClassifierError("operating point several.several: texts of several windows have one point; remove it")

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> OperatingPoint:
        """The point that `as_dict` wrote.

        Raises:
            ClassifierError: a threshold is out of range.
            TypeError: it is no such point.
        """
        doubt, several = data.get("doubt"), data.get("several")
        return cls(**{**data, "doubt": doubt and Doubt(**doubt), "several": several and cls.of(several)})

    def as_dict(self) -> dict[str, Any]:
        """As it stands in ``classifier.json`` and in a manifest."""
        return asdict(self, dict_factory=lambda items: {name: value for name, value in items if value is not None})

    def tier(self, tiers: Mapping[Tier, float]) -> Tier:
        """The tier of one window."""
        if tiers[Tier.UNSAFE] >= self.unsafe:
            return Tier.UNSAFE
        if 1.0 - tiers[Tier.SAFE] < self.risk:
            return Tier.SAFE
        return max((Tier.CONDITIONALLY_SAFE, Tier.FOCUSED_ATTENTION), key=lambda t: tiers[t])

    def decide(self, windows: Sequence[Mapping[Tier, float]], *, several: bool = False) -> tuple[int, Tier, bool]:
        """Which window of a text decides, its tier, and whether that tier is sure.

        The window of the highest tier decides; among windows of that tier, the one that is surest, or, when all are
        Safe, the one that is least sure. How sure a text is of being risky, its riskiest window says.

        Args:
            windows: the probability of each tier, of each window.
            several: whether the text took more than one window; other readings of a short text do not count.
        """
        if several and self.several:
            return self.several.decide(windows)
        judged = [(tier := self.tier(tiers), tiers[tier] if tier else -tiers[tier]) for tiers in windows]
        at = max(range(len(judged)), key=judged.__getitem__)
        tier = judged[at][0]
        if self.doubt is None:
            return at, tier, True
        risk = max(1.0 - tiers[Tier.SAFE] for tiers in windows)
        return at, tier, risk >= self.doubt.risky_from if tier else risk < self.doubt.safe_below


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """What a model folder says of itself beside its weights (``classifier.json``)."""

    name: str
    encoder: str
    encoder_sha256: str
    taxonomy_version: str
    window: int = 256
    overlap: int = 64
    operating_point: OperatingPoint = OperatingPoint()
    calibration: Calibration = AS_TRAINED
    reads: Reads = "texts"

    def __post_init__(self) -> None:
        if not (isinstance(self.window, int) and isinstance(self.overlap, int)):
            raise TypeError(f"window {self.window!r} and overlap {self.overlap!r} must be whole numbers")
        if not isinstance(self.encoder, str):
            raise TypeError(f"encoder {self.encoder!r} must be a name")
        if self.reads not in get_args(Reads):
            raise ValueError(f"reads {self.reads!r} must be one of {', '.join(get_args(Reads))}")

    def save(self, folder: Path) -> None:
        """Write ``classifier.json``."""
        data = asdict(self) | {"operating_point": self.operating_point.as_dict()}
        if self.calibration == AS_TRAINED:
            del data["calibration"]
        (folder / _SETTINGS).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ClassifierSettings:
        """Read ``classifier.json``.

        Raises:
            ClassifierError: it is missing or malformed.
        """
        path = folder / _SETTINGS
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            point, calibration = data.pop("operating_point", {}), data.pop("calibration", {})
            return cls(**data, operating_point=OperatingPoint.of(point), calibration=Calibration(**calibration))
        except FileNotFoundError as exc:
            raise ClassifierError(
                f"classifier model {folder} has no {_SETTINGS}; give the folder that `airlock train classifier` wrote "
                "(for answers: `airlock train responses`)"
            ) from exc
        except (ValueError, TypeError, AttributeError) as exc:
            raise ClassifierError(f"classifier model {folder}: {_SETTINGS} is malformed: {exc}; train again") from exc


def described(folder: Path, encoder: str, sha256: str, reads: Reads = "texts") -> tuple[ClassifierSettings, Taxonomy]:
    """Settings and taxonomy of a model folder, if they belong together and to the encoder.

    Args:
        folder: the model's.
        encoder: name of the encoder that it is to run on.
        sha256: of that encoder.
        reads: what it is to read.

    Raises:
        ClassifierError: a file is missing or broken, or the model was trained with another taxonomy or encoder, or to
            read something else.
    """
    settings = ClassifierSettings.load(folder)
    if settings.reads != reads:
        raise ClassifierError(
            f"classifier model {folder} was trained to read {settings.reads}, not {reads}; `airlock train classifier` "
            "makes models that read texts, `airlock train responses` those that read exchanges"
        )
    if settings.encoder_sha256 != sha256:
        raise ClassifierError(
            f"classifier model {folder} was trained on encoder {settings.encoder!r} (SHA-256 "
            f"{settings.encoder_sha256[:12]}…), not on {encoder!r} ({sha256[:12]}…); set `classifier.encoder` (of "
            "another model than the default, the `encoder` beside its `model`) to the one it was trained on"
        )
    taxonomy = Taxonomy.load(folder / TAXONOMY)
    if settings.taxonomy_version != taxonomy.version:
        raise ClassifierError(
            f"classifier model {folder}: {TAXONOMY} has version {taxonomy.version}, the weights were trained with "
            f"{settings.taxonomy_version}; restore the file or train again"
        )
    return settings, taxonomy
