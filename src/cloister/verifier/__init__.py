"""Attestation as a service: the Verifier of RATS (RFC 9334) behind HTTP (docs/spec/attestation-service.md).

    challenges  nonces that are good once, without memory for those that nobody answers
    requests    bytes -> what is asked
    service     the two models: passport (attester asks) and background check (Relying Party asks)
    policies    policies by id, and for whom results under them may be
    tokens      results as EAT attestation results that systems of workload identity accept
    ring, keyfile  signing keys, their rotation, where they rest
    app         bytes <-> requests <-> service; page/ explains a result to a person

Evidence is verified by ``attest.verifier`` and nothing else: what a custodian would refuse, this refuses.

Not done here: knowing who a caller is beyond an API token; keeping results for longer than their tokens live.
"""
