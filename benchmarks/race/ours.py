"""Our own servers: enclaves as they are shipped, each a process, and the rows that ask them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fleet.enclave import serve_process
from fleet.running import running

from race.plain import PLAIN_PATH, add_plain
from race.server import Row, Server
from race.spelling import BINARY, JSON, OIP
from race.ways import Direct, Sealed, exchange, keyset_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from race.nets import Net

PLAIN = "ours, plain"
TLS = "ours, TLS"
OHTTP = "ours, OHTTP"
BATCHED = "ours, TLS, batching"
OURS = frozenset({PLAIN, TLS, OHTTP, BATCHED})
MANY = 16  # inferences in one request, where a request has many
_LIMITS = {"max_exchanges": 256, "max_connections": 4096, "replay_capacity": 10_000_000}


@contextlib.contextmanager
def enclave(name: str, nets: Sequence[Net], settings: Mapping[str, Any], *, scheme: str = "http") -> Iterator[Server]:
    """Run an enclave that serves these nets; weights are prepacked, as everybody else's are."""
    chosen = {"limits": _LIMITS, "prepack": tuple(net.name for net in nets), **settings}
    data = {net.name: net.data for net in nets}
    with (
        tempfile.TemporaryDirectory(prefix="serving-") as folder,
        running(_serve_alone, folder, data, add_plain, chosen) as (port, pid),
    ):
        yield Server(name=name, url=f"{scheme}://127.0.0.1:{port}", pid=pid)


def _serve_alone(*words: Any) -> None:
    """Serve in a session of its own, as every peer does: Linux shares a busy machine out by sessions."""
    os.setsid()
    serve_process(*words)


def infer_path(net: Net) -> str:
    """Return the path of an inference in the Open Inference Protocol."""
    return f"/v2/models/{net.name}/infer"


def tls_rows(server: Server, nets: Sequence[Net]) -> list[Row]:
    """Return the rows that ask straight over TLS, to the key that the attested keyset names; none where none answers.

    Ends the program where the listener's key is not the attested one: then nothing was measured that is worth anything.
    """
    keyset = keyset_of(server.url)
    place = urlsplit(server.url)
    shown = ssl.get_server_certificate((str(place.hostname), place.port or 0))
    key = x509.load_pem_x509_certificate(shown.encode()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if hashlib.sha256(spki).digest() not in keyset.tls_spki_sha256:
        raise SystemExit(f"{server.name}: the key of the TLS listener is not the attested one")
    try:
        exchange(server.url, OIP[BINARY].write(infer_path(nets[0]), nets[0].inputs(1)))
    except SystemExit:
        print(f"{TLS}: left out, this version does not answer inferences straight over TLS")
        return []
    return [
        Row(
            name=TLS,
            body=body,
            server=server,
            way=Direct(url=server.url, path=infer_path, spelling=OIP[body]),
            rows=many,
            only=None if (body, many) == (BINARY, 1) else frozenset({"mlp"}),
        )
        for body, many in ((BINARY, 1), (JSON, 1), (BINARY, MANY))
    ]


def batched_rows(server: Server) -> list[Row]:
    """Return the row of an enclave that runs waiting requests for small models together."""
    way = Direct(url=server.url, path=infer_path, spelling=OIP[BINARY])
    return [Row(name=BATCHED, body=BINARY, server=server, way=way, only=frozenset({"mlp"}))]


def rows(server: Server, chosen: frozenset[str]) -> list[Row]:
    """Return the rows of the enclave without TLS: in plain, which all ratios are to, and over Oblivious HTTP."""
    found = []
    for body, many in ((BINARY, 1), (JSON, 1), (BINARY, MANY)):
        only = None if (body, many) == (BINARY, 1) else frozenset({"mlp"})
        plain = Direct(url=server.url, path=lambda net: f"{PLAIN_PATH}/{net.name}", spelling=OIP[body])
        found.append(Row(name=PLAIN, body=body, server=server, way=plain, rows=many, only=only))
        if "ohttp" in chosen:
            sealed = Sealed(url=server.url, path=infer_path, spelling=OIP[body])
            found.append(Row(name=OHTTP, body=body, server=server, way=sealed, rows=many, only=only))
    return found
