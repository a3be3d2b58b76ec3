"""FastAPI on uvicorn with uvloop and httptools; raw tensors, or JSON by orjson."""

from __future__ import annotations

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from sessions import PORT, RAW_TYPE, Runner, load_all

app = FastAPI()
nets, runner = load_all(), Runner()


@app.post("/infer/{name}")
async def infer(name: str, request: Request) -> Response:
    """Answer as it was asked."""
    net, body = nets[name], await request.body()
    if request.headers["content-type"] == RAW_TYPE:
        return Response((await runner.run(net, net.parse(body))).tobytes(), media_type=RAW_TYPE)
    outputs = await runner.run(net, np.asarray(orjson.loads(body)["x"], np.float32))
    return Response(orjson.dumps({"y": outputs}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


# FastAPI looks annotations up when the route is made, so what they name must be imported, not only for typing.
if __name__ == "__main__":
    uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning")
