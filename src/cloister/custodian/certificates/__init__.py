"""The custodian's own authority for short-lived certificates (docs/spec/certificates.md).

``signing_request`` what somebody asks by, ``issuing`` authorities and leaves as X.509, ``draft`` how these and the
server's begin. Bytes and values in, bytes and values out: who gets one is decided in ``service.certificates``.
"""
