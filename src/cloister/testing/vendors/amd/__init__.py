"""A synthetic AMD: root, authorities, chips and reports of every version, with a knob for every field and fault.

    authority   ARK, ASK, ASVK and revocation lists of one line of processors
    chip        a VCEK or VLEK and the reports it signs
    report      the values of a report, and its bytes
    attester    evidence of a chip for flows and the demo
    firmware    an image that says what OVMF says about SEV-SNP
    identity    an identity block and its owner's keys

Structurally what AMD issues (names, keys, algorithms, extensions); worth nothing. RSA keys of 4,096 bits are slow to
make, so a process makes three and every synthetic line of processors uses each of them in another place.
"""

from __future__ import annotations

from cloister.testing.vendors.amd.attester import AmdAttester
from cloister.testing.vendors.amd.authority import Issue, SyntheticAmd
from cloister.testing.vendors.amd.chip import Chip
from cloister.testing.vendors.amd.report import ReportValues

__all__ = ["AmdAttester", "Chip", "Issue", "ReportValues", "SyntheticAmd"]
