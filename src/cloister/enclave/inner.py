"""The inner API: what can be asked once a request is open (docs/reference/enclave-api.md, "Inner API").

Sealed fields alone decide: nothing of the outer request reaches this room (T64).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cloister
from cloister.channel.bhttp import BinaryResponse
from cloister.channel.fields import value_of
from cloister.enclave.asker import NOBODY, Asker
from cloister.enclave.contract import contract_json
from cloister.enclave.introductions import is_introduced
from cloister.enclave.problems import status_of
from cloister.errors import Rejected
from cloister.lending.sub_allowance import MAX_CHAIN_BYTES
from cloister.telemetry.spans import parse_traceparent
from cloister.wire import Json, dump_json, parse_b64u
from cloister.wire.values import hot_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.channel.bhttp import BinaryRequest
    from cloister.enclave.inference import Inference
    from cloister.enclave.introductions import Introductions
    from cloister.enclave.metering import Metering
    from cloister.enclave.pool import ModelPool
    from cloister.enclave.served import ServedModel
    from cloister.lending.conditions import Caller
    from cloister.lending.contract import SignedContract
    from cloister.telemetry.spans import Spans

__all__ = ["SUB_ALLOWANCE", "InnerAnswer", "InnerApi"]

SUB_ALLOWANCE = "cloister-sub-allowance"
"""The field with a chain, base64url; its holder's token is in ``authorization``."""

_MODEL = re.compile(r"/v2/models/([a-z0-9._-]{1,64})(?:/versions/([0-9a-f]{64}))?(/ready|/infer)?")
_GEN_AI = {"gen_ai.operation.name": "infer", "gen_ai.provider.name": "cloister"}
_BEARER = re.compile(r"[Bb]earer ([A-Za-z0-9._~+/=-]{1,16384})")


@hot_value
class InnerAnswer:
    """A response, and for whom and which model it is where only a live lease lets it leave."""

    response: BinaryResponse
    model: ServedModel | None = None
    consumer: Caller = None


class InnerApi:
    """Answers inner requests."""

    def __init__(
        self,
        pool: ModelPool,
        metering: Metering,
        inference: Inference,
        *,
        introductions: Introductions,
        contract: SignedContract | None = None,
        spans: Spans | None = None,
    ) -> None:
        """Serve the models of ``pool`` under ``metering``; ``contract`` is what they are lent on."""
        self.contract = contract
        self._spans = spans
        self._introductions = introductions
        self._pool = pool
        self._metering = metering
        self._inference = inference

    @staticmethod
    def is_health(request: BinaryRequest) -> bool:
        """Tell whether a request asks what anybody may ask: it costs nothing and changes nothing."""
        return request.path.startswith("/v2/health/")

    def asker(self, request: BinaryRequest, certificates: Sequence[bytes] = ()) -> Asker:
        """Return who asks: a consumer of the loan by token, by another's word, or the holder of a sub-allowance.

        ``certificates`` are what the caller proved in a TLS handshake that ended in here; they count where there is no
        token. Health needs none. Raises ``Rejected`` (``unauthorized``, and as ``Metering.admit``), ``Unavailable`` as
        ``Introductions``, ``Malformed`` for two tokens or two sub-allowances.
        """
        if self.is_health(request):
            return NOBODY
        value = value_of(request.headers, "authorization")
        found = _BEARER.fullmatch(value) if value is not None else None
        token = found[1].encode("ascii") if found is not None else None
        chain = value_of(request.headers, SUB_ALLOWANCE)
        if chain is not None:
            sub = self._metering.admit(parse_b64u(chain, what=SUB_ALLOWANCE, cap=MAX_CHAIN_BYTES), token)
            return Asker.by_token(token, sub)
        if token is not None and is_introduced(token) and self._metering.issuers:
            return self._introductions.by_token(token, certificates)
        if token is None and certificates and self._metering.issuers:
            return self._introductions.by_certificate(certificates)
        return Asker.by_token(token, self._metering.consumer(token))

    async def answer(self, request: BinaryRequest, asker: Asker) -> InnerAnswer:
        """Return the answer. Raises ``Malformed``, ``Rejected``, ``Unavailable``."""
        match request.path:
            case "/v2/health/live":
                _demand_method(request, "GET")
                return InnerAnswer(response=BinaryResponse(status=200))
            case "/v2/health/ready":
                _demand_method(request, "GET")
                return InnerAnswer(response=BinaryResponse(status=200 if self._is_ready() else 503))
            case "/v2":
                _demand_method(request, "GET")
                return InnerAnswer(response=_json(_server_metadata()))
            case "/v2/contract":
                _demand_method(request, "GET")
                return InnerAnswer(response=_json(contract_json(self.contract, self._metering.consumers)))
        found = _MODEL.fullmatch(request.path)
        if found is None:
            raise Rejected.because("not_found", "path")
        return await self._model_answer(request, found, asker)

    async def _model_answer(self, request: BinaryRequest, found: re.Match[str], asker: Asker) -> InnerAnswer:
        if found[3] == "/ready":
            _demand_method(request, "GET")
            return InnerAnswer(response=BinaryResponse(status=self._readiness(found[1], found[2], asker.caller)))
        model = self._model(found[1], found[2])
        match found[3]:
            case "/infer":
                _demand_method(request, "POST")
                if self._spans is None:
                    response = await self._inference.infer(model, request, asker)
                else:
                    response = await self._traced(self._spans, model, request, asker)
                return InnerAnswer(response=response, model=model, consumer=asker.caller)
            case _:
                _demand_method(request, "GET")
                return InnerAnswer(response=_json(self._model_metadata(model, asker.caller)))

    async def _traced(self, spans: Spans, model: ServedModel, request: BinaryRequest, asker: Asker) -> BinaryResponse:
        """Run an inference in a span: which model, how many units, and nothing of it (T85).

        What is inside the encryption may name the trace that it is part of; what is outside may not (T64).
        """
        parent = parse_traceparent(value_of(request.headers, "traceparent"))
        name = model.terms.name
        with spans.span(f"infer {name}", {**_GEN_AI, "gen_ai.request.model": name}, parent=parent) as span:
            response = await self._inference.infer(model, request, asker)
            units = value_of(response.headers, "cloister-units")
            if units is not None:
                span.note({"cloister.units": int(units)})
            return response

    def _model(self, name: str, version: str | None) -> ServedModel:
        model = self._pool.model(name)
        if model is None:
            if self._metering.terms.model(name) is not None:
                raise Rejected.because("blocked", f"model {name}", got="not released to this instance")
            raise Rejected.because("unknown_model", name)
        if version is not None and version != model.terms.digest:
            raise Rejected.because("unknown_model", name, got=version, want=model.terms.digest)
        return model

    def _readiness(self, name: str, version: str | None, consumer: Caller) -> int:
        """Return a status, which says it all: clients read no body here, and close a connection that has one."""
        try:
            model = self._model(name, version)
        except Rejected as exc:
            return status_of(exc)[0]
        return 200 if self._may_serve(model, consumer) else 503

    def _is_ready(self) -> bool:
        return any(self._may_serve(model, None) for model in self._pool.models)

    def _may_serve(self, model: ServedModel, consumer: Caller) -> bool:
        try:
            self._metering.demand_live(model.terms, consumer)
        except Rejected:
            return False
        return True

    def _model_metadata(self, model: ServedModel, consumer: Caller) -> Json:
        withheld = self._metering.withholding(model, consumer)
        signature = withheld.signature
        return {
            "inputs": [spec.to_json() for spec in signature.inputs],
            "name": model.terms.name,
            "outputs": [spec.to_json() for spec in signature.outputs],
            "parameters": {
                "card": model.manifest.card,
                **_maker(model),
                "loan": self._metering.terms.loan,
                "remaining": self._metering.remaining(model.terms.name, consumer),
                **withheld.to_json(),
            },
            "platform": "onnxruntime_onnx",
            "versions": [model.terms.digest],
        }


def _maker(model: ServedModel) -> dict[str, Json]:
    """Return who made the model, where that was proven over the bytes that run."""
    if model.made is None:
        return {}
    maker = model.made.maker
    return {"maker": {"fingerprint": maker.fingerprint, "kind": maker.kind.value, "signer": model.made.signer}}


def _server_metadata() -> Json:
    return {"extensions": ["binary_tensor_data", "classification"], "name": "cloister", "version": cloister.__version__}


def _json(value: Json) -> BinaryResponse:
    return BinaryResponse(status=200, headers=(("content-type", "application/json"),), body=dump_json(value))


def _demand_method(request: BinaryRequest, want: str) -> None:
    if request.method != want:
        raise Rejected.because("method_not_allowed", "method", want=want)
