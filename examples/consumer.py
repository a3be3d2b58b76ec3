"""Ask a lent model: python examples/consumer.py URL MODEL IMAGE, in a folder with trust.json and clinic.token."""

import sys

from cloister import Client, Trust

url, model, image = sys.argv[1:]
trust = Trust.load("trust.json")  # whose code, on which hardware, for which model

schemes = []
if trust.simulated_root is not None:  # learning without TEE hardware: protects nothing, so it is never the default
    from cloister.testing.simulated import WARNING, SimulatedScheme

    print(WARNING, file=sys.stderr)
    schemes = [SimulatedScheme(trust.simulated_root)]

with Client.verify(url, trust, token_file="clinic.token", schemes=schemes) as client:  # noqa: S106 - a path
    answer = client.infer(model, image=image)
    print(answer.label, "remaining:", answer.remaining)
    answer.receipt.save(f"{image}.receipt")  # signed by the enclave: this model, these bytes, one unit
