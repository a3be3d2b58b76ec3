"""What servers over Starlette and uvicorn share: bodies, rates, problem documents, security headers, sockets, running.

Custodian, relay and attestation service are made of it. The enclave has a web server of its own and nothing of this.

Not done here: what a server answers, and in which order it asks who may (each server's own room).
"""
