"""Which connections a renewed certificate of our own leaves open (``client.pinned_clients``)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.client import pinned_clients
from cloister.client.pinned_clients import PinnedClients
from cloister.client.plan import Open

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_renewal_under_two_sets_of_keys_closes_no_client_that_others_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_clients, "pinned_options", lambda *_: {})
    file = tmp_path / "client.pem"
    clients = PinnedClients(object, timeout=timedelta(seconds=1), certificate=file)
    steps = [Open(url="https://enclave", headers=(), body=b"", keys=(name,)) for name in (b"a", b"b")]
    found = []
    for words in ("first", "the second"):
        file.write_text(words)
        for step in steps:
            client, over = clients.find(step)
            assert over is None
            assert clients.find(step) == (client, None)
            found.append(client)
    assert clients.all() == found
    file.write_text("and the third")
    assert clients.find(steps[0])[1] is found[0]
