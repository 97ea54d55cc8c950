"""Measure what a configuration answers as a whole: from a knowledge base, and to high-risk questions."""
