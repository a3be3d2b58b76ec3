"""PyKMIP's server, and keys made in it by PyKMIP's client: a second implementation, in processes of its own.

kmip_server.py serve FOLDER PORT
kmip_server.py keys FOLDER PORT        prints the identifiers as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kmip.core import enums
from kmip.pie import client, objects
from kmip.services.server.server import KmipServer

BOTH = [enums.CryptographicUsageMask.ENCRYPT, enums.CryptographicUsageMask.DECRYPT]


def serve(folder: Path, port: int) -> None:
    """Serve until killed."""
    (folder / "policies").mkdir()
    server = KmipServer(
        hostname="127.0.0.1", port=port, certificate_path=str(folder / "server.pem"),
        key_path=str(folder / "server.key"), ca_path=str(folder / "ca.pem"), auth_suite="TLS1.2", config_path=None,
        log_path=str(folder / "server.log"), policy_path=str(folder / "policies"), enable_tls_client_auth=True,
        logging_level="DEBUG", database_path=str(folder / "server.db"),
    )  # fmt: skip
    with server:
        server.serve()


def make_keys(folder: Path, port: int) -> dict[str, str]:
    """Return the identifiers of good and unfit keys."""
    found = {}
    files = {"cert": str(folder / "client.pem"), "key": str(folder / "client.key"), "ca": str(folder / "ca.pem")}
    with client.ProxyKmipClient(hostname="127.0.0.1", port=port, config_file="/dev/null", **files) as peer:
        for name in ("vault", "other", "inactive"):
            found[name] = peer.create(enums.CryptographicAlgorithm.AES, 256, cryptographic_usage_mask=BOTH)
        found["short"] = peer.create(enums.CryptographicAlgorithm.AES, 128, cryptographic_usage_mask=BOTH)
        found["secret data"] = peer.register(objects.SecretData(b"password", enums.SecretDataType.PASSWORD))
        for name in ("vault", "other", "short"):
            peer.activate(found[name])
    return found


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.stdout.write(json.dumps(make_keys(Path(sys.argv[2]), int(sys.argv[3]))))
