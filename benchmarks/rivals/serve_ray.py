"""Ray Serve: one replica in a process of its own behind Ray's HTTP proxy; raw tensors, or JSON by orjson."""

from __future__ import annotations

import time

import numpy as np
import orjson
from ray import init, serve
from ray.serve.config import HTTPOptions
from sessions import PORT, RAW_TYPE, Runner, load_all
from starlette.requests import Request  # noqa: TC002 - looked up when it runs
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Nets:
    """All models in one replica."""

    def __init__(self) -> None:
        """Load them."""
        self._nets, self._runner = load_all(), Runner()

    async def __call__(self, request: Request) -> Response:
        """Answer as it was asked."""
        net, body = self._nets[request.url.path.rpartition("/")[2]], await request.body()
        if request.headers["content-type"] == RAW_TYPE:
            return Response((await self._runner.run(net, net.parse(body))).tobytes(), media_type=RAW_TYPE)
        outputs = await self._runner.run(net, np.asarray(orjson.loads(body)["x"], np.float32))
        answer = orjson.dumps({"y": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")


if __name__ == "__main__":
    init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=PORT))
    serve.run(Nets.bind(), route_prefix="/infer")
    while True:
        time.sleep(3600)
