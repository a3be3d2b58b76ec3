"""Google Compute Engine's virtual TPM: which instance an attestation key belongs to (docs/spec/evidence-vtpm.md).

``instance`` Google's certificate extension, ``akcert`` the certificate around it.

Not done here: quotes (``tpm.quoted``), and hardware reports of the same machine.
"""
