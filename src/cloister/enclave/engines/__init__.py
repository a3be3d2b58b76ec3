"""Inference engines: one file per engine."""
