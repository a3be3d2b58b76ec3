"""Names have their forms and no other, and each has one place it can come from."""

from __future__ import annotations

import pytest

from cloister.attest.endorse.names import (
    LASTING,
    MAX_NAME_CHARS,
    Kind,
    amd_ca,
    amd_crl,
    amd_vcek,
    amd_vlek_ca,
    intel_collateral,
    jwks,
    nvidia_ocsp,
    nvidia_rim,
    parse_name,
)
from cloister.attest.endorse.sources import Answer, Sources
from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from endorse_kit import NOW, vouch

NAMES = {
    intel_collateral("sgx", "00906ed50000", "processor"): Kind.INTEL_COLLATERAL,
    amd_ca("milan"): Kind.AMD_CA,
    amd_vlek_ca("genoa"): Kind.AMD_VLEK_CA,
    amd_crl("turin"): Kind.AMD_CRL,
    amd_vcek("milan", "ab" * 64, "04" * 8): Kind.AMD_VCEK,
    amd_vcek("turin", "ab" * 8, "04" * 8): Kind.AMD_VCEK,
    nvidia_rim("NV_GPU_DRIVER_GH100_550.144.03"): Kind.NVIDIA_RIM,
    nvidia_ocsp(0xABC): Kind.NVIDIA_OCSP,
    jwks("sharedweu.weu.attest.azure.net"): Kind.JWKS,
}


@pytest.mark.parametrize(("text", "kind"), NAMES.items())
def test_a_name_made_is_a_name_read(text: str, kind: Kind) -> None:
    name = parse_name(text)
    assert (name.kind, name.text) == (kind, text)
    assert len(text) <= MAX_NAME_CHARS
    assert all(part in text for part in name.parts)


@pytest.mark.parametrize("text", NAMES)
@pytest.mark.parametrize("change", [lambda t: t + "/", lambda t: "/" + t, lambda t: t.upper(), lambda t: t + "\n"])
def test_another_spelling_is_no_name(text: str, change: object) -> None:
    with pytest.raises(Malformed):
        parse_name(change(text))  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    ["nvidia/rim/../x", "nvidia/rim/.x", "nvidia/rim/a/b", "nvidia/rim/" + "a" * 129, "nvidia/ocsp/" + "a" * 41,
     "tokens/jwks/a..b/", "tokens/jwks/.a", "tokens/jwks/a?b", "amd/rome/ca", "amd/milan/vcek/ab/04",
     "intel/tdx/0/platform"],
)  # fmt: skip
def test_what_leads_elsewhere_is_no_name(text: str) -> None:
    with pytest.raises(Malformed):
        parse_name(text)


def test_urls_are_those_of_the_vendors_documents() -> None:
    sources = Sources(("sharedweu.weu.attest.azure.net", "portal.trustauthority.intel.com", "a.example", "b.example/k"))

    def urls(text: str) -> list[str]:
        return [query.url for query in sources.queries(parse_name(text))]

    assert urls(amd_vcek("turin", "ab" * 8, "0102030400000005")) == [
        f"https://kdsintf.amd.com/vcek/v1/Turin/{'ab' * 8}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05"
    ]
    assert urls(amd_vcek("milan", "ab" * 64, "0300000000001873")) == [
        f"https://kdsintf.amd.com/vcek/v1/Milan/{'ab' * 64}?blSPL=03&teeSPL=00&snpSPL=24&ucodeSPL=115"
    ]
    assert urls(amd_vlek_ca("genoa")) == ["https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain"]
    assert urls(intel_collateral("tdx", "00806f050000", "platform")) == [
        "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=00806f050000",
        "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity",
        "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    ]
    assert urls(jwks("sharedweu.weu.attest.azure.net")) == ["https://sharedweu.weu.attest.azure.net/certs"]
    assert urls(jwks("portal.trustauthority.intel.com")) == ["https://portal.trustauthority.intel.com/certs"]
    assert urls(jwks("a.example")) == ["https://a.example/.well-known/jwks.json"]
    assert urls(jwks("b.example")) == ["https://b.example/k"]
    for text in NAMES:
        assert sources.origin(parse_name(text)).startswith("https://")
    with pytest.raises(Unavailable):
        urls(jwks("c.example"))


@pytest.mark.parametrize("host", ["", "https://x", "X.example", "a b", "a/../b c", "x:443", "-x", "a/" + "b" * 201])
def test_a_token_service_that_is_no_host_is_a_mistake_of_the_settings(host: str) -> None:
    with pytest.raises(UsageError):
        Sources((host,))


def test_a_line_of_processors_without_a_root_is_untrusted() -> None:
    name = parse_name(amd_crl("genoa"))
    from endorse_kit import amd  # noqa: PLC0415 - slow keys, for this alone

    with pytest.raises(Rejected, match="untrusted_root"):
        vouch().verify(name, amd().crl(), NOW)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"tcbInfo":{},"signature":"00"}', {}),
        (b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}', {}),
        (b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}', {"tcb-info-issuer-chain": "x" * 20_000}),
        (b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}', {"tcb-info-issuer-chain": "%ff"}),
        (b'{"tcbInfo":{"\xff":1},"signature":"' + b"0" * 128 + b'"}', {"tcb-info-issuer-chain": "x"}),
        (b'{"other":{},"signature":"' + b"0" * 128 + b'"}', {"tcb-info-issuer-chain": "x"}),
    ],
)
def test_intels_answers_have_one_shape(body: bytes, headers: dict[str, str]) -> None:
    answer = Answer(body=body, headers=headers)
    name = parse_name(intel_collateral("tdx", "00806f050000", "platform"))
    with pytest.raises(Malformed):
        Sources.read(name, [answer, answer, answer, answer])


@pytest.mark.parametrize(
    "body",
    [b'{"rim":1,"sha256":"00"}', b'{"rim":"!","sha256":""}', b'{"rim":"AAAA","sha256":"' + b"0" * 64 + b'"}', b"[]"],
)
def test_a_manifest_in_another_shape_or_of_another_digest_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Sources.read(parse_name(nvidia_rim("X")), [Answer(body=body, headers={})])


def test_what_lasts_has_no_news() -> None:
    assert {Kind.AMD_CRL, Kind.INTEL_COLLATERAL, Kind.NVIDIA_OCSP, Kind.JWKS}.isdisjoint(LASTING)
