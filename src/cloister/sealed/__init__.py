"""Sealed models: seal, open, prove what was opened."""
