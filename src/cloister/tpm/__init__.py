"""A TPM 2.0 client in plain Python: raw commands over the kernel's resource manager or a software TPM's socket.

``transport`` carries bytes, ``codec`` frames commands and answers, ``commands`` has one method for each
command, ``nv`` the small memories with names, ``quoting`` quotes with their PCRs, ``keys`` the endorsement and
attestation keys, ``sealing`` secrets bound to PCRs.

Not done here: encrypted sessions. Somebody with probes on the bus of a discrete TPM reads what is unsealed
(docs/adr/0008).
"""
