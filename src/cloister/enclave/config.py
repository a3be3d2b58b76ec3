"""Every setting of an enclave, frozen, each with its unit (docs/reference/enclave-settings.md).

Settings come from a TOML file, then from ``CLOISTER_ENCLAVE_...`` variables, then from the command line; the
later wins. Unknown settings are refused. Those that change what the enclave does are measured
(``EnclaveConfig.measured``): another value is another digest in the evidence (T10).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.crypto.mldsa import PUBLIC_BYTES, SecondKey
from cloister.enclave.config_rules import demand_sane
from cloister.enclave.modes import ListenerCertificate, Mtls, Profile, Relays, Tls
from cloister.errors import Malformed, UsageError
from cloister.sealed.oms import Maker, parse_makers
from cloister.sealed.oms.maker import MAX_MAKERS
from cloister.stores import ModelUrl, parse_place, read_access
from cloister.stores.place import is_url
from cloister.wire import Fields, Json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.stores import Access, Place

__all__ = [
    "ENV_PREFIX",
    "Batching",
    "EnclaveConfig",
    "Limits",
    "ListenerCertificate",
    "Mtls",
    "Profile",
    "Relays",
    "Tls",
    "load_config",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8440
ENV_PREFIX = "CLOISTER_ENCLAVE_"
_MAX_CONFIG_BYTES = 256 * 1024
_MAX_MODELS = 32
_LISTS = ("model_makers", "models", "prepack")
_TRUTHS = ("airgapped", "behind_proxy", "require_model_signature", "require_unswappable")
_SIZE = re.compile(r"([1-9][0-9]{0,15})(KiB|MiB|GiB|TiB)?")
_SHIFTS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_NUMBERS = ("engine_threads", "engine_workers", "traces_percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the serving path."""

    max_request_bytes: int = 32 << 20  # bytes of one encapsulated request
    max_response_bytes: int = 64 << 20  # bytes of one inner response body
    max_json_bytes: int = 4 << 20  # bytes of JSON in one inference request
    max_exchanges: int = 64  # exchanges under way at once
    max_waiting_bytes: int = 256 << 20  # bytes of request bodies that have not fully arrived, over all exchanges
    max_queued: int = 256  # inferences that wait for the engine at once
    max_queued_bytes: int = 256 << 20  # bytes of their inputs
    max_connections: int = 1024  # connections open at once; idle ones make room, then the answer is 503
    max_evidence_waiting: int = 8  # fresh evidence being collected or waited for at once
    replay_capacity: int = 100_000  # encapsulated keys remembered for three minutes
    idempotency_entries: int = 4096  # requests remembered by Idempotency-Key
    idempotency_bytes: int = 64 << 20  # bytes of replies remembered
    body_timeout_s: int = 30  # seconds until a request's head must have arrived, and again for its body
    idle_timeout_s: int = 75  # seconds a connection is kept on which nothing is asked
    send_timeout_s: int = 30  # seconds a consumer may take to read one chunk
    drain_timeout_s: int = 10  # seconds that running exchanges get at shutdown
    model_wait_s: int = 30  # seconds a request waits for other models to leave room in memory
    custodian_timeout_s: int = 10  # seconds for one call to the custodian, and never more than T/3
    keyset_lifetime_s: int = 3600  # seconds a keyset is published
    keyset_overlap_s: int = 300  # seconds its keys are accepted after that


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How requests to one model are run together: at most ``rows`` rows, gathered for at most ``window_us``."""

    rows: int = 64
    window_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveConfig:
    """The settings of one enclave."""

    loan: Path
    models: tuple[Place, ...]
    model_ca: Path | None = None
    model_token_file: Path | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    service: str = ""
    tls: Tls = Tls.OFF
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    listener_certificate: ListenerCertificate = ListenerCertificate.OWN
    relays: Relays = Relays.OFF
    mtls: Mtls = Mtls.WANTED
    client_certificates: bool = False
    profile: Profile = Profile.DEVELOPMENT
    behind_proxy: bool = False
    require_unswappable: bool = False
    require_model_signature: bool = False
    model_makers: tuple[Maker, ...] | None = None
    second_publisher: SecondKey | None = None
    media: Path | None = None
    metrics: str | None = None
    metrics_token_file: Path | None = None
    traces: str | None = None
    traces_percent: int = 100
    airgapped: bool = False
    engine_threads: int = 1
    engine_workers: int = 1
    prepack: tuple[str, ...] | None = None
    memory_budget: int | None = None
    batching: Mapping[str, Batching] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def access(self, environment: Mapping[str, str]) -> Access:
        """Return what lets us in where models lie behind URLs.

        Raises ``UsageError``, also where a token would be shown to more than one server: each could use it elsewhere.
        """
        access = read_access(ca=self.model_ca, token_file=self.model_token_file, environment=environment)
        servers = {place.netloc for place in self.models if isinstance(place, ModelUrl) and place.takes_token}
        if access.token is not None and len(servers) > 1:
            msg = f"models: a token for {len(servers)} servers, and each would see what lets us in at the others"
            raise UsageError(msg, hint="take models that need a token from one server")
        return access

    def measured(self) -> Json:
        """Return the settings that go into the software manifest; places and names are not among them."""
        return {
            "batching": {name: asdict(setting) for name, setting in sorted(self.batching.items())},
            "engine_threads": self.engine_threads,
            "limits": asdict(self.limits),
            "model_makers": None
            if self.model_makers is None
            else sorted(maker.fingerprint for maker in self.model_makers),
            "profile": self.profile.value,
            "second_publisher": None if self.second_publisher is None else self.second_publisher.fingerprint,
            "relays": self.relays.value,
            "require_model_signature": self.require_model_signature,
            "require_unswappable": self.require_unswappable,
            "tls": self.tls.value,
            "traces": self.traces is not None,
        }


def load_config(
    path: Path | None, *, env: Mapping[str, str], overrides: Mapping[str, Json] | None = None
) -> EnclaveConfig:
    """Return the settings of file, environment and command line. Raises ``UsageError`` naming the setting."""
    settings: dict[str, Json] = {**_read(path), **_from_env(env)}
    settings |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        config = _parse(settings, base=path.parent if path else Path())
    except Malformed as exc:
        raise UsageError(exc.message, hint="see docs/reference/enclave-settings.md") from exc
    demand_sane(config)
    return config


def _read(path: Path | None) -> dict[str, Json]:
    if path is None:
        return {}
    try:
        data = path.read_bytes()
        if len(data) > _MAX_CONFIG_BYTES:
            msg = f"{path}: {len(data)} bytes, want at most {_MAX_CONFIG_BYTES}"
            raise UsageError(msg)
        settings: dict[str, Json] = tomllib.loads(data.decode("utf-8"))
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise UsageError(msg) from exc
    except ValueError as exc:  # tomllib names line and column, and never a value
        msg = f"{path}: not toml: {exc}" if isinstance(exc, tomllib.TOMLDecodeError) else f"{path}: not utf-8"
        raise UsageError(msg) from exc
    return settings


def _from_env(env: Mapping[str, str]) -> dict[str, Json]:
    """Return settings from variables; models stand between colons as paths do, between spaces where one is a URL."""
    known = {item.name for item in fields(EnclaveConfig)} - {"batching", "limits", "host", "port"} | {"listen"}
    found: dict[str, Json] = {}
    for variable, text in env.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in known:
            msg = f"{variable}: no such setting"
            raise UsageError(msg)
        found[name] = _typed(variable, name, text)
    return found


def _typed(variable: str, name: str, text: str) -> Json:
    if name in _LISTS:
        if name == "models" and is_url(text):
            return text.split()
        return text.split(":") if text or name == "models" else []
    if name in _TRUTHS:
        if text not in {"true", "false"}:
            msg = f"{variable}: want true or false"
            raise UsageError(msg)
        return text == "true"
    if name in _NUMBERS:
        if not (text.isascii() and text.isdigit() and len(text) <= 9):  # noqa: PLR2004 - no setting is larger
            msg = f"{variable}: want a number"
            raise UsageError(msg)
        return int(text)
    return text


def _parse(settings: dict[str, Json], *, base: Path) -> EnclaveConfig:
    taken = Fields(settings, what="enclave settings")
    host, port = _listen(taken)
    config = EnclaveConfig(
        loan=base / taken.text("loan", cap=4096, floor=1),
        models=tuple(parse_place(item, base=base) for item in taken.texts("models", cap=_MAX_MODELS, item_cap=4096)),
        model_ca=_path(taken, "model_ca", base),
        model_token_file=_path(taken, "model_token_file", base),
        host=host,
        port=port,
        service=taken.optional("service", lambda name: taken.text(name, cap=256)) or "",
        tls=Tls(_choice(taken, "tls", Tls.OFF, tuple(Tls))),
        tls_certificate=_path(taken, "tls_certificate", base),
        tls_key=_path(taken, "tls_key", base),
        listener_certificate=ListenerCertificate(
            _choice(taken, "listener_certificate", ListenerCertificate.OWN, tuple(ListenerCertificate))
        ),
        relays=Relays(_choice(taken, "relays", Relays.OFF, tuple(Relays))),
        mtls=Mtls(_choice(taken, "mtls", Mtls.WANTED, tuple(Mtls))),
        client_certificates=taken.optional("client_certificates", taken.boolean) or False,
        profile=Profile(_choice(taken, "profile", Profile.DEVELOPMENT, tuple(Profile))),
        behind_proxy=taken.optional("behind_proxy", taken.boolean) or False,
        require_unswappable=taken.optional("require_unswappable", taken.boolean) or False,
        require_model_signature=taken.optional("require_model_signature", taken.boolean) or False,
        model_makers=_makers(taken, base),
        second_publisher=_second(taken, base),
        media=_path(taken, "media", base),
        metrics=taken.text("metrics", cap=256, floor=1) if "metrics" in taken else None,
        metrics_token_file=_path(taken, "metrics_token_file", base),
        traces=taken.text("traces", cap=512, floor=1) if "traces" in taken else None,
        traces_percent=_number(taken, "traces_percent", 100, floor=1, cap=100),
        airgapped=taken.optional("airgapped", taken.boolean) or False,
        engine_threads=_number(taken, "engine_threads", 1, floor=0, cap=1024),
        engine_workers=_number(taken, "engine_workers", 1, floor=1, cap=1024),
        memory_budget=_bytes(taken, "memory_budget"),
        prepack=taken.texts("prepack", cap=_MAX_MODELS, item_cap=64) if "prepack" in taken else None,
        batching=_batching(taken),
        limits=_limits(taken),
    )
    taken.end()
    return config


def _batching(taken: Fields) -> dict[str, Batching]:
    if "batching" not in taken:
        return {}
    found = {}
    for name, value in taken.members("batching", cap=_MAX_MODELS).items():
        inner = Fields(value, what=f"enclave settings: batching.{name[:64]}")
        found[name] = Batching(
            rows=_number(inner, "rows", Batching().rows, floor=2, cap=65536),
            window_us=_number(inner, "window_us", 0, floor=0, cap=1_000_000),
        )
        inner.end()
    return found


def _limits(taken: Fields) -> Limits:
    if "limits" not in taken:
        return Limits()
    inner = taken.fields("limits")
    values = {
        item.name: _number(inner, item.name, item.default, floor=1, cap=1 << 40)
        for item in fields(Limits)
        if isinstance(item.default, int)
    }
    inner.end()
    return Limits(**values)


def _number(taken: Fields, name: str, default: int, *, floor: int, cap: int) -> int:
    return taken.integer(name, floor=floor, cap=cap) if name in taken else default


def _bytes(taken: Fields, name: str) -> int | None:
    """Return a number of bytes, written as ``8GiB``, ``512MiB`` or plainly; None where there is none."""
    if name not in taken:
        return None
    found = _SIZE.fullmatch(taken.text(name, cap=32))
    if found is None:
        taken.fail(name, "want a size such as 8GiB, 512MiB or 1073741824")
    return int(found[1]) << _SHIFTS[found[2] or ""]


def _choice(taken: Fields, name: str, default: str, choices: tuple[str, ...]) -> str:
    if name not in taken:
        return default
    got = taken.text(name, cap=64)
    if got not in choices:
        taken.fail(name, "want " + ", ".join(choices))
    return got


def _path(taken: Fields, name: str, base: Path) -> Path | None:
    return base / taken.text(name, cap=4096, floor=1) if name in taken else None


def _makers(taken: Fields, base: Path) -> tuple[Maker, ...] | None:
    """Return whom a model has to be made by: the content of these files is measured, and not where they lie."""
    if "model_makers" not in taken:
        return None
    found: dict[Maker, None] = {}
    for item in taken.texts("model_makers", cap=MAX_MAKERS, item_cap=4096):
        found |= dict.fromkeys(parse_makers(_bounded(base / item)))
    if not 1 <= len(found) <= MAX_MAKERS:
        taken.fail("model_makers", f"{len(found)} keys and roots, want 1 to {MAX_MAKERS}")
    return tuple(found)


def _second(taken: Fields, base: Path) -> SecondKey | None:
    """Return the key of manifests' second signatures, which makes them wanted."""
    path = _path(taken, "second_publisher", base)
    if path is None:
        return None
    key = SecondKey(_bounded(path))
    if len(key.raw) != PUBLIC_BYTES:
        taken.fail("second_publisher", f"{len(key.raw)} bytes, want the {PUBLIC_BYTES} of an ML-DSA-65 key")
    return key


def _bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as exc:  # the second for a name with a zero byte
        msg = f"{path}: cannot be read"
        raise UsageError(msg) from exc
    if len(data) > _MAX_CONFIG_BYTES:
        msg = f"{path}: more than {_MAX_CONFIG_BYTES} bytes"
        raise UsageError(msg)
    return data


def _listen(taken: Fields) -> tuple[str, int]:
    if "listen" not in taken:
        return DEFAULT_HOST, DEFAULT_PORT
    host, colon, port = taken.text("listen", cap=256).rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port[:6]) <= 0xFFFF):  # noqa: PLR2004
        taken.fail("listen", "want HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)
