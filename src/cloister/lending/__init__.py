"""Lending: what a loan allows and what the parties say about it.

``terms`` has the loan, ``messages`` the wire, ``release`` who may have a key, ``lease`` who may serve how
much, ``receipt`` what was served, ``ledger`` where every unit went. Pure: no clock, no I/O.
"""
