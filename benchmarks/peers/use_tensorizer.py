"""tensorizer, encrypted (XSalsa20-Poly1305 of libsodium), into tensors of PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from serve import MODEL, PIECE, SEALED, serve
from tensorizer import DecryptionParams, EncryptionParams, TensorDeserializer, TensorSerializer

KEY = os.urandom(32)


def seal() -> None:
    """Write the model as tensors of 16 MiB."""
    data = np.memmap(MODEL, dtype=np.uint8, mode="c")
    tensors = {
        f"w{at:09}": torch.from_numpy(data[at * PIECE : (at + 1) * PIECE]) for at in range(-(-len(data) // PIECE))
    }
    serializer = TensorSerializer(str(SEALED), encryption=EncryptionParams(KEY))
    serializer.write_state_dict(tensors)
    serializer.close()


def opened() -> list[object]:
    """Return every tensor, on the processor."""
    with TensorDeserializer(str(Path(SEALED)), device="cpu", encryption=DecryptionParams.from_key(KEY)) as found:
        return [found[name].numpy() for name in sorted(found)]


serve(seal, opened)
