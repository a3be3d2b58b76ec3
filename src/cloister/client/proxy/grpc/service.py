"""``inference.GRPCInferenceService`` over the verified enclave: each call is one request of the HTTP form.

Messages are taken and given as bytes, so that what is wrong with one is ours to say, and nothing of it reaches the
library's log. Who may not call is told so by what comes before a message: a stranger's is never waited for or held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from cloister.client.proxy.app import outward
from cloister.client.proxy.grpc.messages import SERVICE, message, parse
from cloister.client.proxy.grpc.translate import (
    model_path,
    parse_call,
    read_infer_answer,
    read_model_metadata,
    read_server_metadata,
)
from cloister.client.proxy.refusal import refusal
from cloister.errors import CloisterError, Malformed, UsageError
from cloister.wire import Fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from cloister.channel.fields import FieldLines
    from cloister.client.passing import Passed
    from cloister.client.proxy.gate import Gate
    from cloister.client.proxy.upstream import Upstream

__all__ = ["Guard", "Service"]

_OK = 200
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    402: grpc.StatusCode.RESOURCE_EXHAUSTED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.FAILED_PRECONDITION,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_MAX_DETAIL = 2048


class _NotGiven(Exception):
    """An answer that is none: its HTTP status, and what to say."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail[:_MAX_DETAIL]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # of a library without types
    """Lets calls through that ``gate`` admits."""

    def __init__(self, gate: Gate) -> None:
        """Demand what ``gate`` demands."""
        self._gate = gate

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the method's handler, or one that refuses before it reads."""
        shown = [str(value) for name, value in details.invocation_metadata or () if name == "authorization"]
        try:
            self._gate.admit_token(shown)
        except CloisterError as exc:
            said = _not_given(exc)
        else:
            return await continuation(details)

        async def refuse(_: AsyncIterator[bytes], context: Any) -> None:
            context.set_trailing_metadata((("cloister-code", said.code),))
            await context.abort(_CODES[said.status], said.detail)

        return grpc.stream_stream_rpc_method_handler(refuse)


class Service:
    """Answers the calls of programs of this machine."""

    def __init__(self, upstream: Upstream) -> None:
        """Ask ``upstream``."""
        self._upstream = upstream

    def handler(self) -> Any:
        """Return what a server is given."""
        unary = {
            "ModelInfer": self._infer,
            "ModelMetadata": self._model_metadata,
            "ModelReady": self._model_ready,
            "ServerLive": self._server_live,
            "ServerMetadata": self._server_metadata,
            "ServerReady": self._server_ready,
        }
        methods = {name: grpc.unary_unary_rpc_method_handler(self._called(method)) for name, method in unary.items()}
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _called(self, method: Callable[[bytes, Any], Awaitable[bytes]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def call(data: bytes, context: Any) -> bytes:
            try:
                return await method(data, context)
            except Exception as exc:  # noqa: BLE001 - the server's edge: whatever it was, the call ends with a status
                said = _not_given(exc)
            context.set_trailing_metadata((("cloister-code", said.code),))
            await context.abort(_CODES.get(said.status, grpc.StatusCode.UNKNOWN), said.detail)
            return b""

        return call

    async def _server_live(self, _: bytes, __: Any) -> bytes:
        return _dump("ServerLiveResponse", live=await self._holds("/v2/health/live"))

    async def _server_ready(self, _: bytes, __: Any) -> bytes:
        return _dump("ServerReadyResponse", ready=await self._holds("/v2/health/ready"))

    async def _model_ready(self, data: bytes, _: Any) -> bytes:
        asked = _asked("ModelReadyRequest", data)
        return _dump("ModelReadyResponse", ready=await self._holds(model_path(asked.name, asked.version, "/ready")))

    async def _server_metadata(self, _: bytes, __: Any) -> bytes:
        return read_server_metadata((await self._get("/v2")).answer)

    async def _model_metadata(self, data: bytes, _: Any) -> bytes:
        asked = _asked("ModelMetadataRequest", data)
        return read_model_metadata((await self._get(model_path(asked.name, asked.version))).answer)

    async def _infer(self, data: bytes, context: Any) -> bytes:
        shown = context.invocation_metadata() or ()
        keys = tuple((name, str(value)) for name, value in shown if name == "idempotency-key")
        left_s = context.time_remaining()
        passed, answer = await self._inferred(data, keys, None if left_s is None else int(left_s * 1e6))
        context.set_trailing_metadata(tuple(line for line in outward(passed) if line[0].startswith("cloister-")))
        return answer

    async def _stream(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        """Answer one after the other, in their order; what is refused is an answer too, and the stream goes on."""
        async for data in requests:
            try:
                answer = (await self._inferred(data))[1]
            except Exception as exc:  # noqa: BLE001 - as above
                yield _dump("ModelStreamInferResponse", error_message=_not_given(exc).detail)
            else:
                found = message("ModelStreamInferResponse")()
                found.infer_response.MergeFromString(answer)
                yield found.SerializeToString()

    async def _inferred(self, data: bytes, keys: FieldLines = (), left_us: int | None = None) -> tuple[Passed, bytes]:
        try:
            call = parse_call(data, left_us=left_us)
        except Malformed as exc:
            raise UsageError(exc.message) from exc  # as in _asked
        passed = _given(await self._upstream.ask("POST", call.path, (*call.headers, *keys), call.body))
        return passed, read_infer_answer(passed.answer, typed=call.typed)

    async def _get(self, path: str) -> Passed:
        return _given(await self._upstream.ask("GET", path, (), b""))

    async def _holds(self, path: str) -> bool:
        """Tell what the HTTP form tells by its status; while the enclave is not verified nothing holds."""
        try:
            return (await self._upstream.ask("GET", path, (), b"")).answer.status == _OK
        except CloisterError:
            return False


def _asked(name: str, data: bytes) -> Any:
    """Return a program's message. Raises ``UsageError``: its bytes are its own fault, not the enclave's."""
    try:
        return parse(name, data)
    except Malformed as exc:
        raise UsageError(exc.message) from exc


def _given(passed: Passed) -> Passed:
    """Return an answer that is one. Raises with what the enclave says where it refuses."""
    answer = passed.answer
    if answer.status == _OK:
        return passed
    code, detail = _said(answer.body)
    raise _NotGiven(answer.status, code, detail or f"status {answer.status}")


def _not_given(error: Exception) -> _NotGiven:
    if isinstance(error, _NotGiven):
        return error
    if not isinstance(error, CloisterError):
        return _NotGiven(500, "internal", f"internal error ({type(error).__name__})")
    reply = refusal(error)
    return _NotGiven(reply.status, *_said(reply.body))


def _said(body: bytes) -> tuple[str, str]:
    """Return code and text of a problem document, empty where it is none."""
    try:
        fields = Fields.parse(body, what="problem")
        code = fields.text("code", cap=64) if "code" in fields else ""
        return code, fields.text("error", cap=_MAX_DETAIL) if "error" in fields else ""
    except Malformed:
        return "", ""


def _dump(name: str, **members: Any) -> bytes:
    return message(name)(**members).SerializeToString()  # type: ignore[no-any-return]  # bytes
