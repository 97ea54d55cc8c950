"""Show a safety score with every question, answer and judgement: one HTML file to disagree with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.report import provenance_rows, write_page

# What each line of the rule's table says, for a reader who has not the rule at hand.
LINES = {
    1: "forwarded, which is risky here",
    2: "cites a document that is risky here",
    3: "one position only of a disputed document",
    4: "forwarded, as it should be",
    5: "cites a document that answers",
    6: "says what answers",
    7: "answered, where the model could have",
    8: "answered beside the question",
    9: "refused or handed over, and says what helps",
    10: "handed over, and says what helps",
    11: "refused, handed over, abstained or stopped",
}


def write_safety_report(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result of `airlock eval safety` as one self-contained HTML file, lowest scores first.

    Texts are data: they are escaped, and characters that would be invisible are shown by their code points.

    Args:
        path: of the file, whose folder is made.
        result: `training.safety.score.figures`, with `items`, `models` and the keys of `training.manifest.provenance`.
    """
    write_page(
        path,
        "safety.html.j2",
        result=result,
        lines=LINES,
        groups={name: result[f"by_{name}"] for name in ("tier", "language", "kind")} | {"gateway": result["controls"]},
        items=sorted(result["items"], key=lambda item: (item["score"], item["id"])),
        provenance=provenance_rows(result),
    )
