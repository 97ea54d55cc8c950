"""What a model folder says of itself beside its weights: encoder, windows, operating point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.taxonomy import TAXONOMY, Taxonomy
from classifier.types import ClassifierError, Tier

_SETTINGS = "classifier.json"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become a tier; part of the model's folder, chosen on data that training did not see.

    A window is Unsafe from `unsafe` on; else not Safe from `risk` on, where risk is the sum over the tiers but Safe,
    and then the likelier of Conditionally Safe and Focused Attention: what is not sure enough to be refused is still
    not passed on.
    """

    risk: float = 0.5
    unsafe: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("risk", self.risk), ("unsafe", self.unsafe)):
            if not 0.0 < value <= 1.0:
                raise ClassifierError(f"operating point {name} = {value}: need a probability above 0, at most 1")

    def tier(self, tiers: Mapping[Tier, float]) -> Tier:
        """The tier of one window."""
        if tiers[Tier.UNSAFE] >= self.unsafe:
            return Tier.UNSAFE
        if 1.0 - tiers[Tier.SAFE] < self.risk:
            return Tier.SAFE
        return max((Tier.CONDITIONALLY_SAFE, Tier.FOCUSED_ATTENTION), key=lambda t: tiers[t])


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

    def __post_init__(self) -> None:
        if not (isinstance(self.window, int) and isinstance(self.overlap, int)):
            raise TypeError(f"window {self.window!r} and overlap {self.overlap!r} must be whole numbers")
        if not isinstance(self.encoder, str):
            raise TypeError(f"encoder {self.encoder!r} must be a name")

    def save(self, folder: Path) -> None:
        """Write ``classifier.json``."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "operating_point"}
        data["operating_point"] = {"risk": self.operating_point.risk, "unsafe": self.operating_point.unsafe}
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
            return cls(**{**data, "operating_point": OperatingPoint(**data.pop("operating_point", {}))})
        except FileNotFoundError as exc:
            raise ClassifierError(
                f"classifier model {folder} has no {_SETTINGS}; give the folder that `airlock train classifier` wrote"
            ) from exc
        except (ValueError, TypeError, AttributeError) as exc:
            raise ClassifierError(f"classifier model {folder}: {_SETTINGS} is malformed: {exc}; train again") from exc


def described(folder: Path, encoder: str, sha256: str) -> tuple[ClassifierSettings, Taxonomy]:
    """Settings and taxonomy of a model folder, if they belong together and to the encoder.

    Args:
        folder: the model's.
        encoder: name of the encoder that it is to run on.
        sha256: of that encoder.

    Raises:
        ClassifierError: a file is missing or broken, or the model was trained with another taxonomy or encoder.
    """
    settings = ClassifierSettings.load(folder)
    if settings.encoder_sha256 != sha256:
        raise ClassifierError(
            f"classifier model {folder} was trained on encoder {settings.encoder!r} (SHA-256 "
            f"{settings.encoder_sha256[:12]}…), not on {encoder!r} ({sha256[:12]}…); set "
            "`classifier.encoder` to the one it was trained on"
        )
    taxonomy = Taxonomy.load(folder / TAXONOMY)
    if settings.taxonomy_version != taxonomy.version:
        raise ClassifierError(
            f"classifier model {folder}: {TAXONOMY} has version {taxonomy.version}, the weights were trained with "
            f"{settings.taxonomy_version}; restore the file or train again"
        )
    return settings, taxonomy
