"""Vaults: where model keys rest. One file per backend behind one Protocol."""
