"""A container of Azure as azurite plays it, Microsoft's own emulator (``npm install azurite``): the real protocol.

No emulator of Google Cloud Storage that PyPI or npm has speaks its XML interface, which ``obstore`` uses.
"""

from __future__ import annotations

import base64
import hmac
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.store import AzureStore
from stores_kit import HASTY, parts_of, small_model, with_envelope, write_folder

from cloister.errors import Rejected
from cloister.sealed.directory import DirectorySource
from cloister.sealed.open import open_model
from cloister.stores import open_source, open_target, pull, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloister.stores import Pushed

AZURITE = os.environ.get("AZURITE") or shutil.which("azurite-blob")
pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(AZURITE is None, reason="no azurite-blob on the path or in AZURITE: npm install azurite"),
]
ACCOUNT = "devstoreaccount1"  # the emulator's, with the key that its documentation prints
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
URL = "az://models/m"
VERSION = "2021-08-06"


def make_container(base: str) -> None:
    """Create Container, signed by Shared Key."""
    date = formatdate(usegmt=True)
    told = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{VERSION}\n/{ACCOUNT}/{ACCOUNT}/models\nrestype:container"
    )
    mac = base64.b64encode(hmac.digest(base64.b64decode(KEY), told.encode(), "sha256")).decode()
    head = {"x-ms-date": date, "x-ms-version": VERSION, "Authorization": f"SharedKey {ACCOUNT}:{mac}"}
    request = urllib.request.Request(f"{base}/{ACCOUNT}/models?restype=container", method="PUT", headers=head)  # noqa: S310
    for _ in range(200):
        try:
            urllib.request.urlopen(request).close()  # noqa: S310
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.1)  # it has not come up yet
        else:
            return
    pytest.fail("azurite does not come up")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureStore]:
    """Run azurite with an empty container, and let the environment lead there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert AZURITE is not None
    command = [AZURITE, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen(  # noqa: S603 - the emulator that is tested against
        [*command, "--blobPort", str(port)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        base = f"http://127.0.0.1:{port}"
        make_container(base)
        settings = {"STORAGE_USE_EMULATOR": "true", "STORAGE_ACCOUNT_NAME": ACCOUNT, "STORAGE_ACCOUNT_KEY": KEY}
        for name, value in settings.items():
            monkeypatch.setenv(f"AZURE_{name}", value)
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", base)
        yield AzureStore.from_url(URL, client_options={"allow_http": True})
    finally:
        process.terminate()
        process.wait(timeout=30)


def pushed(folder: Path) -> Pushed:
    with open_target(URL, patience=HASTY) as target:
        return push(DirectorySource(folder), target)


def test_a_model_goes_into_azure_opens_from_there_and_comes_back(container: AzureStore, tmp_path: Path) -> None:
    model = with_envelope(small_model())
    result = pushed(write_folder(tmp_path / "m", model))
    assert (result.written, result.kept) == (len(model.source.parts), 0)
    assert {item["path"] for batch in obstore.list(container) for item in batch} == set(model.source.parts)
    with open_source(URL) as source, open_model(source, model.verified(), model.dek) as opened:
        assert {path: opened.read(path, 0, len(data)) for path, data in model.plain.items()} == model.plain
    with open_source(URL) as source:
        assert pull(source, tmp_path / "again").envelope
    assert parts_of(tmp_path / "again") == model.source.parts


def test_a_push_again_writes_what_is_missing_and_overwrites_nothing(container: AzureStore, tmp_path: Path) -> None:
    model = with_envelope(small_model())
    folder = write_folder(tmp_path / "m", model)
    pushed(folder)
    assert pushed(folder).written == 0
    lost = model.blob("weights/one.bin")
    obstore.delete(container, lost)
    assert pushed(folder).written == 1
    damaged = bytearray(obstore.get(container, lost).bytes())
    damaged[40] ^= 1
    obstore.put(container, lost, bytes(damaged))
    with open_source(URL) as source, pytest.raises(Rejected):
        open_model(source, model.verified(), model.dek)
