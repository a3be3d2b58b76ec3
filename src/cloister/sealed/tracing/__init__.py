"""Leak tracing: each borrower's copy carries low-order bits of its own, and a leaked copy names whose it was.

``mark`` nudges floats by a key, ``floats`` finds them in a model, ``marked`` is a model as it is sealed for one
borrower, ``detect`` judges a suspect file, ``record`` is what the custodian keeps. Specification:
docs/spec/tracing.md. Not done here: keeping records and keys, which the custodian does.
"""

from __future__ import annotations
