"""TPM 2.0 attestation, the pure half: structures, quotes, event logs, credentials, certificates, enrolment.

``structures`` bytes to values and back, ``quote`` what a TPM signed, ``eventlog`` how the PCRs came to
be, ``policy`` PCR policy digests without a TPM, ``ek`` and ``akcert`` who vouches for a key,
``credential`` a secret only one TPM can open, ``enrolment`` the conversation of all these.

Not done here: talking to a TPM (``cloister/tpm``).
"""
