"""Synthetic issuers of tokens: own keys, key sets and chains, and what each kind of token says.

Shaped like the tokens of Azure Attestation, Trust Authority, Confidential Space, NRAS and Veraison; every value is made
up. Not done here: anything that verifies hardware. Whoever has such an issuer's key can say anything.
"""

from cloister.testing.vendors.tokens.issuer import Faults, TokenAttester, TokenVendor

__all__ = ["Faults", "TokenAttester", "TokenVendor"]
