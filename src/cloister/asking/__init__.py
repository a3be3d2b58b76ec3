"""A consumer's page: ask a lent model in a browser, and see who can read it.

A browser cannot verify an enclave, so this server does: it is the consumer's own, verifies before it listens, and
decrypts. ``questionnaire`` is the form of a model and what somebody filled in, ``answer`` what came back, ``readers``
who can read it, ``questions`` what is under way and what was answered lately, ``app`` the routes, ``serve`` runs it.
Nothing of a question is written to a disk.
"""
