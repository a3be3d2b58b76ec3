"""LitServe: one server for each model, as it has one API a path; JSON, or the tensor as an uploaded file."""

from __future__ import annotations

from typing import Any

import litserve
import numpy as np
from sessions import PORT, WORKERS, Net, load, names


class Api(litserve.LitAPI):
    """One model."""

    def __init__(self, name: str) -> None:
        """Serve at the model's own path."""
        super().__init__(api_path=f"/infer/{name}")
        self._name = name

    def setup(self, device: str) -> None:
        """Load the model in the process that runs it."""
        del device
        self.net: Net = load(self._name)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - an annotation would be its schema
        """Return the rows."""
        if "file" in request:
            return self.net.parse(request["file"].file.read())
        return np.asarray(request["x"], np.float32)

    def predict(self, x: Any) -> Any:
        """Return the outputs."""
        return self.net.run(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return JSON either way: outputs are small."""
        return {"y": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        [Api(name) for name in names()],
        accelerator="cpu",
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(port=PORT, host="127.0.0.1", num_api_servers=1, log_level="warning", generate_client_file=False)
