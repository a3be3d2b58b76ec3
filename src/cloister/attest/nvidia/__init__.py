"""NVIDIA GPU and NVSwitch evidence: SPDM reports, device certificates, reference manifests, revocation answers.

``spdm`` has the messages, ``opaque`` the vendor's fields in them, ``report`` what they mean; ``devicechain`` and
``dice`` the certificates; ``ocsp`` their revocation; ``rim``, ``rimsignature`` and ``golden`` the reference values;
``evidence`` the payload, ``collateral`` what it is judged by. The procedure over them is ``schemes/nvidia``
(docs/spec/evidence-nvidia.md).
"""
