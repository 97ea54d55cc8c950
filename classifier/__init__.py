"""Input door: sort any text into four tiers of risk, with an encoder, a LoRA adapter and a category head."""

from classifier.taxonomy import Category, Taxonomy
from classifier.types import ClassifierError, Coverage, Handling, Span, TextTooLong, Tier, Verdict

__all__ = ["Category", "ClassifierError", "Coverage", "Handling", "Span", "Taxonomy", "TextTooLong", "Tier", "Verdict"]
