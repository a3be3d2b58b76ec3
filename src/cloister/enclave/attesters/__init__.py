"""How evidence is obtained: one file per TEE."""
