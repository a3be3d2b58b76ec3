"""Pages for people, of whichever server: templates, components, style, one small script, charts, headers.

A server makes one ``Site`` over its folder of templates and mounts ``Site.assets``. Everything is escaped, nothing is
loaded from elsewhere, every page works with its script turned off, and no template sees more than what it is given.
Not done here: who may see what, and what a form does (``custodian.dashboard`` and its like).
"""

from __future__ import annotations

from cloister.pages.headers import CONTENT_SECURITY_POLICY, PAGE_HEADERS
from cloister.pages.site import NavEntry, Site

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE_HEADERS", "NavEntry", "Site"]
