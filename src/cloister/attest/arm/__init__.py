"""Attestation tokens of Arm: PSA (TrustZone) and CCA (docs/spec/evidence-arm.md)."""
