"""MLServer with a runtime of its own over ONNX Runtime; Open Inference Protocol in JSON, which is what its REST has."""

from __future__ import annotations

import asyncio

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from sessions import PORT, Runner, load, names


class OnnxRuntime(MLModel):
    """One model, run in the server's own process: for these, another process costs more than it gains."""

    async def load(self) -> bool:
        """Load the model."""
        self._net, self._runner = load(self.name), Runner()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the outputs."""
        asked = payload.inputs[0]
        inputs = np.asarray(asked.data.root, np.float32).reshape(asked.shape)
        outputs = await self._runner.run(self._net, inputs)
        told = ResponseOutput(name="y", shape=list(outputs.shape), datatype="FP32", data=outputs.reshape(-1).tolist())
        return InferenceResponse(model_name=self.name, outputs=[told])


async def main() -> None:
    """Serve every model over REST, one process."""
    settings = Settings(
        host="127.0.0.1",
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_endpoint=None,
        parallel_workers=0,
        debug=False,
        logging_settings=None,
    )
    where = ModelParameters(uri=".")
    await MLServer(settings).start(
        [ModelSettings(name=name, implementation=OnnxRuntime, parameters=where) for name in names()]
    )


if __name__ == "__main__":
    asyncio.run(main())
