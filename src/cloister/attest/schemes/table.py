"""How each kind's scheme is made for a site, and which claims its policies must have a rule for.

A kind's file is imported in its maker: whoever asks for one kind loads one verifier.
"""
# ruff: noqa: PLC0415 - that is the point of this file

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cloister.attest.rats import TeeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.attest.schemes.site import Site
    from cloister.attest.verifier import Scheme

__all__ = ["MAKERS", "Maker", "required_of_site_kinds"]

Maker: TypeAlias = "Callable[[Site], Scheme | None]"
"""Makes the scheme of one kind; None where the site named nobody to trust for it."""


def _sgx(site: Site) -> Scheme:
    from cloister.attest.schemes.sgx import production_sgx_scheme

    del site
    return production_sgx_scheme()


def _tdx(site: Site) -> Scheme:
    from cloister.attest.schemes.tdx import production_tdx_scheme

    del site
    return production_tdx_scheme()


def _snp(site: Site) -> Scheme:
    from cloister.attest.schemes.snp import production_snp_scheme

    del site
    return production_snp_scheme()


def _azure_snp(site: Site) -> Scheme:
    from cloister.attest.schemes.azure_vtpm import AzureVtpmScheme

    return AzureVtpmScheme(_snp(site))


def _azure_tdx(site: Site) -> Scheme:
    from cloister.attest.schemes.azure_vtpm import AzureVtpmScheme

    return AzureVtpmScheme(_tdx(site))


def _gce(site: Site) -> Scheme:
    from cloister.attest.schemes.gce_vtpm import production_gce_vtpm_scheme

    del site
    return production_gce_vtpm_scheme()


def _nitro(site: Site) -> Scheme:
    from cloister.attest.schemes.nitro import production_nitro_scheme

    del site
    return production_nitro_scheme()


def _gpu(site: Site) -> Scheme:
    from cloister.attest.schemes.nvidia import production_nvidia_schemes

    del site
    return production_nvidia_schemes()[0]


def _switch(site: Site) -> Scheme:
    from cloister.attest.schemes.nvidia import production_nvidia_schemes

    del site
    return production_nvidia_schemes()[1]


def _psa(site: Site) -> Scheme | None:
    from cloister.attest.arm.anchors import parse_anchors
    from cloister.attest.schemes.psa import PsaScheme

    anchors = [anchor for item in site.arm_anchors for anchor in parse_anchors(item)]
    return PsaScheme(anchors) if anchors else None


def _cca(site: Site) -> Scheme | None:
    from cloister.attest.arm.anchors import parse_anchors
    from cloister.attest.schemes.cca import CcaScheme

    anchors = [anchor for item in site.arm_anchors for anchor in parse_anchors(item)]
    return CcaScheme(anchors) if anchors else None


def _maa(site: Site) -> Scheme | None:
    from cloister.attest.schemes.token import production_maa_scheme

    return production_maa_scheme(site.maa_hosts) if site.maa_hosts else None


def _ita(site: Site) -> Scheme:
    from cloister.attest.schemes.token import production_ita_scheme

    del site
    return production_ita_scheme()


def _confidential_space(site: Site) -> Scheme | None:
    from cloister.attest.schemes.token import production_confidential_space_scheme

    return production_confidential_space_scheme(site.audiences) if site.audiences else None


def _nras(site: Site) -> Scheme:
    from cloister.attest.schemes.token import production_nras_scheme

    del site
    return production_nras_scheme()


def _tpm(site: Site) -> Scheme | None:
    from cloister.attest.schemes.tpm import TpmScheme

    return TpmScheme(site.tpm_authorities) if site.tpm_authorities else None


MAKERS: Mapping[TeeKind, Maker] = {
    TeeKind("azure-snp-vtpm"): _azure_snp,
    TeeKind("azure-tdx-vtpm"): _azure_tdx,
    TeeKind("cca"): _cca,
    TeeKind("confidential-space"): _confidential_space,
    TeeKind("gce-vtpm"): _gce,
    TeeKind("ita"): _ita,
    TeeKind("maa"): _maa,
    TeeKind("nitro"): _nitro,
    TeeKind("nras"): _nras,
    TeeKind("nvidia-gpu"): _gpu,
    TeeKind("nvidia-switch"): _switch,
    TeeKind("psa"): _psa,
    TeeKind("sgx"): _sgx,
    TeeKind("snp"): _snp,
    TeeKind("tdx"): _tdx,
    TeeKind("tpm"): _tpm,
}


def required_of_site_kinds() -> Mapping[TeeKind, frozenset[str]]:
    """Return what is required of kinds that exist only where a site names somebody."""
    from cloister.attest.schemes.cca import CcaScheme
    from cloister.attest.schemes.psa import PsaScheme
    from cloister.attest.schemes.tpm import TpmScheme
    from cloister.attest.tokens.confidential_space import CONFIDENTIAL_SPACE
    from cloister.attest.tokens.maa import MAA

    return {
        TeeKind("cca"): CcaScheme.required,
        TeeKind("confidential-space"): CONFIDENTIAL_SPACE.required,
        TeeKind("maa"): MAA.required,
        TeeKind("psa"): PsaScheme.required,
        TeeKind("tpm"): TpmScheme.required,
    }
