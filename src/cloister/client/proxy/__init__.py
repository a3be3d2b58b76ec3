"""A door on this machine for programs that speak the inference protocol and know nothing of enclaves.

``upstream`` is the verified enclave behind it, ``gate`` decides who may come through, ``app`` takes HTTP, ``refusal``
says no, ``status`` says what was verified, ``token`` is the secret of this machine's user, ``keeping`` keeps receipts,
``serve`` runs it. The gRPC form is in ``grpc/``. Nothing here writes a body, a token or a header anywhere.
"""
