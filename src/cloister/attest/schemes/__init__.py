"""One file per TEE, behind the Scheme protocol."""
