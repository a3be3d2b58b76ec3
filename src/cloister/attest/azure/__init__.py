"""Azure's confidential VMs: a virtual TPM that a hardware report vouches for (docs/spec/evidence-vtpm.md).

``hcl`` the report that the paravisor keeps in NV memory, ``evidence`` the JSON in which projects pass it on,
``akcert`` the certificate that Azure issues for the attestation key.

Not done here: hardware reports (``amd``, ``intel``), quotes (``tpm``).
"""
