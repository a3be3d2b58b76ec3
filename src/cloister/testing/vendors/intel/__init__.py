"""A vendor of SGX and TDX platforms that does not exist: own root, exact evidence, every fault on request.

``vendor`` is the whole; ``pki`` its certificates and lists, ``documents`` what it publishes, ``bodies`` what its
platforms report, ``quotes`` how they sign it, ``eventlogs`` how its firmware logs.
"""

from cloister.testing.vendors.intel.vendor import SgxAttester, SyntheticIntel, TdxAttester

__all__ = ["SgxAttester", "SyntheticIntel", "TdxAttester"]
