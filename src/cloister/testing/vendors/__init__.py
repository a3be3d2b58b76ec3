"""Synthetic vendors: an own root for each, structurally exact evidence for every TEE. They protect nothing.

What no vendor publishes (revoked leaves, expired lists, debug bits, every TCB status) is made here, so that
each is a test. Handed in by tests and by the demo; in no production table.
"""
