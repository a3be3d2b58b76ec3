"""How pages look: one style sheet inside of them, allowed by its digest; light and dark as the reader's system says."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["CONTENT_SECURITY_POLICY", "STYLE"]

STYLE = """
:root { color-scheme: light dark; --edge: #8886; --good: #0a6b2d; --bad: #b3261e; --open: #8a5a00; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --good: #7fd699; --bad: #ff8a80; --open: #f0c04f; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
a:focus-visible, button:focus-visible, textarea:focus-visible, summary:focus-visible
  { outline: 3px solid; outline-offset: 2px; }
.skip { left: -100vw; position: absolute; } .skip:focus { left: 1rem; }
textarea { font: .9rem/1.4 ui-monospace, monospace; width: 100%; min-height: 10rem; padding: .5rem; }
button { font: inherit; margin-top: .5rem; padding: .5rem 1rem; }
.verdict { border: 2px solid var(--edge); border-left-width: .75rem; padding: .5rem 1rem; }
.affirming { border-color: var(--good); } .warning { border-color: var(--open); }
.contraindicated, .untrue { border-color: var(--bad); }
dl { display: grid; gap: .25rem 1rem; grid-template-columns: max-content 1fr; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { font-weight: 600; padding: .5rem 0; text-align: left; }
th, td { border-bottom: 1px solid var(--edge); padding: .35rem .5rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; } th { background: var(--soft); }
code { font-size: .9em; overflow-wrap: anywhere; }
.passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; } .not-checked { color: var(--open); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } }
"""

_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No script, no picture, no frame, nothing from elsewhere; forms go back to where they are from."""
