"""Audit: which attention heads carry a model's safety (Ships and Sahara, arXiv 2410.13708)."""
