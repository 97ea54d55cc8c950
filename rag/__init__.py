"""Output door: answers made of sentences from a trusted knowledge base, each traced to its place there."""

from rag.types import Citation, Document, Encoder, Evidence, GroundedAnswer, KnowledgeError, Passage, Status

__all__ = ["Citation", "Document", "Encoder", "Evidence", "GroundedAnswer", "KnowledgeError", "Passage", "Status"]
