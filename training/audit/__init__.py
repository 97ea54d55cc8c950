"""Audit checkpoints, harden them and prove it; the test bed and the planted models that audits are tried on."""
