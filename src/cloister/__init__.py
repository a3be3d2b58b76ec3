"""Cloister: lend an AI model without giving it away; ask it without being overheard."""

__version__ = "0.1.0"
