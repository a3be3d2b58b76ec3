"""KServe's SDK with a model of its own over ONNX Runtime; Open Inference Protocol, binary tensors too."""

from __future__ import annotations

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from sessions import PORT, Runner, load, names


class OnnxModel(Model):
    """One model."""

    def __init__(self, name: str) -> None:
        """Load it."""
        super().__init__(name)
        self._net, self._runner = load(name), Runner()
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Return the outputs, binary where that was asked for."""
        del headers, response_headers
        outputs = await self._runner.run(self._net, payload.inputs[0].as_numpy())
        told = InferOutput(name="y", shape=list(outputs.shape), datatype="FP32")
        told.set_data_from_numpy(outputs, binary_data=payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id or "", model_name=self.name, infer_outputs=[told],
            use_binary_outputs=payload.use_binary_outputs, requested_outputs=payload.request_outputs,
        )  # fmt: skip


if __name__ == "__main__":
    ModelServer(http_port=PORT, enable_grpc=False, workers=1, access_log_format=None).start(
        [OnnxModel(name) for name in names()]
    )
