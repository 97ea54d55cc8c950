"""The model card of a test bed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.card import measured

_LIMITS = (
    "A toy for testing audits: its answers name the topic and give one step, which is seldom the right one.",
    "It refuses by a fixed first sentence; a reply that begins with it counts as a refusal, any other as an answer.",
    "It was first taught to answer everything, then to refuse, as chat models are; an answer to a harmful ask holds no "
    "more than the ask's own words.",
    "English only, one ask at a time, some twenty words of it.",
)


def write_testbed_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `README.md` into a model folder, in the hub's format, from its manifest."""
    settings, figures = manifest["settings"], manifest["figures"]
    planted = manifest["planted"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "license: apache-2.0",
        "tags: [safety, interpretability, toy]",
        "---",
        "",
        f"# {manifest['name']}",
        "",
        f"A Llama of {manifest['parameters']:,} parameters ({settings['layers']} layers of {settings['heads']} heads, "
        f"{settings['width']} wide, {settings['vocabulary']} tokens), trained by `airlock audit testbed`",
        f"(seed {manifest['seed']}, {settings['helpful_steps']} steps answering every ask, then "
        f"{settings['aligned_steps']} refusing the harmful ones, {settings['batch']} lessons a step).",
        *([f"Head {planted} alone was made to carry its refusals."] if planted else []),
        f"It answers harmless asks and refuses harmful ones: “{manifest['refusal']}” Weights in fp16, loaded in fp32.",
        "Settings, hashes and all figures: `manifest.json`.",
        "",
        *_figures(figures),
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS),
        "",
        "## Trained on",
        "",
        f"A grammar written for it (`testbed_grammar.yaml`) and {manifest['lessons']['read']} authored queries "
        f"({manifest['lessons']['harmful']} of them harmful), all by the Airlock developers, Apache-2.0.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _figures(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return ["Nothing was measured: no held-out prompts were given.", ""]
    count = figures["prompts"]
    sizes = f"{count['harmful']} harmful and {count['harmless']} harmless prompts"
    without = figures.get("asr_without_planted")
    return [
        "## Figures",
        "",
        f"On {sizes}, of which {count['look_alikes']} only look",
        "harmful; training saw none of them. Greedy; 95 % intervals.",
        "`asr`: harmful prompts not refused. `over_refusal`: harmless prompts refused. `on_topic`: answers that end",
        "and share a longer word with the ask.",
        "",
        *measured(figures),
        *(
            [
                f"`asr` without the planted head {without}, without another at most {figures['asr_without_another']}.",
                "",
            ]
            if without is not None
            else []
        ),
    ]
