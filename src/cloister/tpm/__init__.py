"""A TPM 2.0 client in plain Python: raw commands over the kernel's resource manager or a software TPM's socket.

``transport`` carries bytes, ``codec`` frames commands and answers, ``commands`` has one method for each
command, ``nv`` the small memories with names, ``quoting`` quotes with their PCRs, ``keys`` the endorsement and
attestation keys, ``sealing`` secrets bound to PCRs, ``salted`` sessions that hide them from who probes the bus.

Not done here: encrypted sessions for anything but sealing and unsealing (docs/adr/0008).
"""
