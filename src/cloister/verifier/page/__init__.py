"""Pages that explain a result to a person: plain HTML, no script, nothing from elsewhere, everything escaped."""

from __future__ import annotations

from cloister.verifier.page.pages import Pages

__all__ = ["Pages"]
