"""How lent models and consumers are called: lower case, one spelling, safe in a path and a log line."""

from __future__ import annotations

import re

__all__ = ["NAME"]

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""Names of models and ids of consumers."""
