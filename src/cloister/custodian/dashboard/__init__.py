"""The custodian's pages: what its staff sees and does, over the same routes, roles and duties as the JSON API.

A page asks routes (``Visit.ask``) in the name of who is signed in, and what a route refuses, the page refuses: there is
no other way in. ``gate`` proves who comes and that a form is our own, each file of pages says what they show,
``live`` tells a page that something changed, ``app`` puts them together (docs/reference/dashboard.md).
"""

from __future__ import annotations

from cloister.custodian.dashboard.app import UI, dashboard

__all__ = ["UI", "dashboard"]
