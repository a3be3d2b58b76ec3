"""``cloister attest``: collect, verify, inspect and recall evidence; endorsements; doing it for others."""

from __future__ import annotations

import click

from cloister.cli.attest_bundle import bundle
from cloister.cli.attest_collect import collect, detect
from cloister.cli.attest_inspect import inspect
from cloister.cli.attest_passport import passport
from cloister.cli.attest_recall import recall
from cloister.cli.attest_sample import sample
from cloister.cli.attest_serve import caller, rotate, serve, setup
from cloister.cli.attest_token import token
from cloister.cli.attest_vectors import vectors
from cloister.cli.attest_verify import verify
from cloister.cli.terminal import Group

__all__ = ["attest"]


@click.group(cls=Group)
def attest() -> None:
    """Collect, verify, inspect and recall attestation evidence, here or as a service."""


for command in (bundle, caller, collect, detect, inspect, passport, recall):
    attest.add_command(command)
for command in (rotate, sample, serve, setup, token, vectors, verify):
    attest.add_command(command)
