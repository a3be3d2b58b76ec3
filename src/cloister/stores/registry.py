"""A package in an OCI registry (distribution-spec 1.1): parts are blobs named by their digests, a manifest lists them.

Blobs are read by range, as from a web server; a registry that sends us elsewhere for a blob is followed once, over TLS
and without credentials. Blobs are written in chunks of 16 MiB, each tried again. Not done here: helper programs for
credentials, mounting blobs from other repositories, the referrers API.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from cloister.errors import Malformed, Unavailable, UsageError
from cloister.sealed.manifest import ENVELOPE_NAME, model_digest
from cloister.stores.access import Access
from cloister.stores.http import demand_private
from cloister.stores.link import Link, Traffic
from cloister.stores.oci_artifact import MANIFEST_TYPE, MAX_ARTIFACT_BYTES, Artifact, Blob, parse_reference
from cloister.stores.oci_login import Login
from cloister.stores.oci_upload import Upload
from cloister.stores.patience import Patience
from cloister.stores.place import ModelUrl
from cloister.stores.ranges import refused
from cloister.stores.reader import RangeReader, RangeSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.stores.link import Answer
    from cloister.stores.part import Part

__all__ = ["Registry"]

_OK, _CREATED, _UNAUTHORIZED, _NOT_FOUND = 200, 201, 401, 404
_ELSEWHERE = frozenset({302, 303, 307})
_MOST_OTHERS = 8  # hosts that blobs are fetched from
_MAX_LOCATION_CHARS = 8192


class Registry(RangeSource):
    """One artifact of a registry, for reading and for writing. Any thread may read."""

    def __init__(self, url: ModelUrl, *, access: Access | None = None, patience: Patience | None = None) -> None:
        """Connect to nothing yet. Raises ``UsageError`` for what names no artifact, and for unfit credentials.

        On loopback without an authority plain HTTP is spoken, as container tools do.
        """
        self._url = url
        self._access, self._patience = access or Access(), patience or Patience()
        self._reference = parse_reference(url)
        scheme = "http" if url.is_loopback and self._access.ca is None else "https"
        self._host = replace(url, scheme=scheme, path="")
        demand_private(self._host, self._access)
        self._link = Link(self._host, self._access, self._patience)
        self._login = Login(self._host, self._access, self._patience, os.environ)
        self._credential = self._login.first()
        self._others: dict[str, Link] = {}
        self._digests: dict[str, Blob] = {}
        self._known: Artifact | None = None
        self._turn = Lock()
        self._reader = RangeReader(self._get, self._patience, self._subject)

    @property
    def traffic(self) -> Traffic:
        """What went over the wire so far, to other hosts too."""
        return self._link.traffic

    # reading

    @contextmanager
    def _get(self, name: str, headers: Mapping[str, str], *, deadline: float) -> Iterator[Answer]:
        """Ask for a part; follow to where the registry keeps it."""
        blob = self._artifact().parts.get(name)
        if blob is None:
            msg = f"{self._subject(name)}: not there"
            raise Unavailable(msg, hint="is the sealed model whole?")
        with self._exchange("GET", self._blob_target(blob), headers, deadline=deadline) as answer:
            if answer.status not in _ELSEWHERE:
                yield answer
                return
            link, target = self._elsewhere(answer.header("location") or "")
        with link.exchange("GET", target, headers, deadline=deadline) as answer:
            yield answer

    def _elsewhere(self, location: str) -> tuple[Link, str]:
        """Return a connection to where a blob lies, and the target there; credentials do not go there."""
        try:
            parts = urlsplit(location if len(location) <= _MAX_LOCATION_CHARS and location.isprintable() else "")
            host = ModelUrl(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, path="")
        except ValueError:
            host = ModelUrl(scheme="", host="", port=None, path="")
        on_loopback = host.scheme == "http" and host.is_loopback and self._url.is_loopback
        if not host.host or "@" in parts.netloc or not (host.scheme == "https" or on_loopback):
            msg = f"{self._url}: sends us elsewhere in a way that is not followed"
            raise Unavailable(msg)
        with self._turn:
            link = self._others.get(str(host))
            if link is None:
                if len(self._others) >= _MOST_OTHERS:
                    msg = f"{self._url}: sends us to more than {_MOST_OTHERS} hosts"
                    raise Unavailable(msg)
                link = self._others[str(host)] = Link(host, replace(self._access, token=None), self._patience)
                link.traffic = self._link.traffic
        return link, f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"

    def _artifact(self) -> Artifact:
        with self._turn:
            known = self._known
        if known is None:
            known = self._find()
            if known is None:
                msg = f"{self._url}: not there"
                raise Unavailable(msg, hint="is the url right, and may you read it?")
            with self._turn:
                known = self._known = self._known or known
        return known

    def _find(self) -> Artifact | None:
        """Return what the reference names now, None where nothing is there. Raises ``Malformed`` for something else."""

        def work(deadline: float) -> bytes | None:
            accept = {"accept": MANIFEST_TYPE}
            with self._exchange("GET", self._manifest_target(), accept, deadline=deadline) as answer:
                if answer.status == _NOT_FOUND:
                    return None
                if answer.status != _OK:
                    raise refused(answer, str(self._url))
                return answer.whole(MAX_ARTIFACT_BYTES)

        data = self._patience.insist(str(self._url), work)
        if data is None:
            return None
        wanted = self._reference.digest
        if wanted is not None and wanted != f"sha256:{hashlib.sha256(data).hexdigest()}":
            msg = f"{self._url}: sent another artifact than asked for"
            raise Unavailable(msg)
        return Artifact.parse(data)

    # writing

    def demand_free(self, manifest: bytes) -> None:
        """Prove that the tag names no other model. Raises ``UsageError`` or ``Unavailable``."""
        if self._reference.tag is None:
            msg = f"{self._url}: want a tag to put a model there"
            raise UsageError(msg, hint="as oci://HOST/REPOSITORY:TAG")
        try:
            found = self._find()
        except Malformed as exc:
            raise self._taken() from exc
        if found is not None and found.model != model_digest(manifest):
            raise self._taken()
        self._known = found

    def holds(self, part: Part, *, replace: bool = False) -> bool:
        """Tell whether the registry has ``part``, by its digest, for which it is read once. Raises as ``Target``."""
        digest = hashlib.sha256()
        for piece in part.read():
            digest.update(piece)
        blob = self._digests[part.name] = Blob(digest=f"sha256:{digest.hexdigest()}", size=part.size)
        there = None if self._known is None else self._known.parts.get(part.name)
        if part.name == ENVELOPE_NAME and there not in {None, blob} and not replace:
            raise self._taken()

        def work(deadline: float) -> bool:
            with self._exchange("HEAD", self._blob_target(blob), {}, deadline=deadline) as answer:
                if answer.status in _ELSEWHERE | {_OK, _NOT_FOUND}:
                    return answer.status != _NOT_FOUND
                raise refused(answer, self._subject(part.name))

        return self._patience.insist(self._subject(part.name), work)

    def put(self, part: Part, *, replace: bool = False) -> None:  # noqa: ARG002 - blobs are never replaced
        """Write ``part`` as a blob; the registry compares its digest. Raises ``Unavailable``."""
        target = f"/v2/{self._reference.repository}/blobs/uploads/"
        upload = Upload(self._exchange, self._host, self._patience, self._subject(part.name))
        upload.write(target, part, self._digests[part.name].digest)

    def finish(self, parts: tuple[Part, ...]) -> None:
        """Let the tag name these parts, if it does not yet. Raises ``UsageError`` or ``Unavailable``."""
        wanted = {part.name: self._digests[part.name] for part in parts}
        if self._known is not None and wanted.items() <= self._known.parts.items():
            return
        data = Artifact(parts=wanted).dump()

        def work(deadline: float) -> None:
            headers = {"content-type": MANIFEST_TYPE, "content-length": str(len(data))}
            target = self._manifest_target()
            with self._exchange("PUT", target, headers, deadline=deadline, body=data) as answer:
                if answer.status != _CREATED:
                    raise refused(answer, str(self._url))

        self._patience.insist(str(self._url), work)

    # both

    @contextmanager
    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], *, deadline: float, body: bytes | None = None
    ) -> Iterator[Answer]:
        """Exchange as ``Link`` does, and once more with a credential where the registry asks for one."""
        for last in (False, True):
            mine = {} if self._credential is None else {"authorization": self._credential}
            with self._link.exchange(method, target, {**mine, **headers}, deadline=deadline, body=body) as answer:
                if answer.status != _UNAUTHORIZED or last:
                    yield answer
                    return
                challenge = answer.header("www-authenticate") or ""
            self._credential = self._login.answer(challenge, deadline)

    def _blob_target(self, blob: Blob) -> str:
        return f"/v2/{self._reference.repository}/blobs/{blob.digest}"

    def _manifest_target(self) -> str:
        return f"/v2/{self._reference.repository}/manifests/{self._reference.name}"

    def _taken(self) -> UsageError:
        msg = f"{self._url}: something else is there already, and nothing is overwritten"
        return UsageError(msg, hint="choose another tag")

    def _subject(self, name: str) -> str:
        return f"{self._url}: {name}"

    def close(self) -> None:
        """Close all connections; harmless the second time."""
        for link in (self._link, *self._others.values()):
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
