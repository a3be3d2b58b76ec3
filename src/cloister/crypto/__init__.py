"""Keys and ciphers: HPKE (``hpke``), signed statements (``sign``), bulk encryption (``stream``).

Thin and exact over ``cryptography``; no primitive is implemented here. Pure: no clock, no I/O.
"""
