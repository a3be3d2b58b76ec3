"""Attestation documents of AWS Nitro Enclaves (docs/spec/evidence-nitro.md)."""
