"""Structures and rules of Intel SGX and TDX attestation (docs/spec/evidence-intel.md): one noun a file.

``quote`` with its bodies (``enclave``, ``td``) is what a platform signs; ``pck`` the certificate it signs with;
``collateral`` what Intel publishes about it, made of ``tcbinfo`` and ``qeidentity``; ``tcb`` the rules that make a
status of both; ``chain`` and ``verify`` the procedure; ``second`` the independent verifier that has to agree.
"""
