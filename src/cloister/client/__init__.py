"""The consumer's side: verify, ask, prove."""
