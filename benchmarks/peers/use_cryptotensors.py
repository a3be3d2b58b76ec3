"""cryptotensors (AES-256-GCM, a signed header), into arrays of NumPy. Keys come as JSON in the environment."""

from __future__ import annotations

import json
import os

import cryptotensors
import numpy as np
from cryptotensors.numpy import load_file, save_file
from serve import MODEL, PIECE, SEALED, serve

KEYS = json.loads(os.environ["CRYPTOTENSORS_KEYS"])
cryptotensors.register_direct_key_provider(keys=list(KEYS.values()))


def seal() -> None:
    """Write the model as tensors of 16 MiB."""
    data = np.memmap(MODEL, dtype=np.uint8, mode="r")
    tensors = {f"w{at:09}": np.asarray(data[at * PIECE : (at + 1) * PIECE]) for at in range(-(-len(data) // PIECE))}
    save_file(tensors, SEALED, config=KEYS)


def opened() -> list[object]:
    """Return every tensor."""
    found = load_file(SEALED)
    return [found[name] for name in sorted(found)]


serve(seal, opened)
