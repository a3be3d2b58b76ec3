"""Remote attestation (RATS, RFC 9334): evidence in, appraised result out.

``rats`` has the nouns, ``binding`` what a report binds, ``appraise`` policies, ``verifier`` the one
procedure, ``ear`` the result as a token, ``schemes`` one file per TEE. Pure: no clock, no I/O.
"""
