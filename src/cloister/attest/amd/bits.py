"""Bits of the guest policy and of the platform (AMD 56860 revision 1.58, sections 4.3 and 7.3).

``name`` is AMD's, in lower case; ``claim`` is what a policy of ours calls it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLATFORM_BITS", "POLICY_BITS", "POLICY_KNOWN", "POLICY_MUST_BE_ONE", "Bit"]


@dataclass(frozen=True, slots=True)
class Bit:
    """One bit and what it means when it is set."""

    place: int
    name: str
    claim: str
    meaning: str

    def of(self, value: int) -> bool:
        """Tell whether the bit is set in ``value``."""
        return bool(value >> self.place & 1)


POLICY_BITS = (
    Bit(16, "smt", "policy.smt", "the guest may run where a core has two threads"),
    Bit(18, "migrate_ma", "migratable", "a migration agent may move the guest to another machine"),
    Bit(19, "debug", "debug", "the hypervisor may read and write the guest's memory: no protection at all"),
    Bit(20, "single_socket", "policy.single_socket", "the guest runs on one socket only"),
    Bit(21, "cxl_allow", "policy.cxl_allow", "memory may lie on CXL devices"),
    Bit(22, "mem_aes_256_xts", "policy.mem_aes_256_xts", "memory has to be encrypted with AES-256-XTS"),
    Bit(23, "rapl_dis", "policy.rapl_dis", "power readings have to be off (they leak what is computed)"),
    Bit(24, "ciphertext_hiding", "policy.hide_ciphertext", "the hypervisor has to be kept from reading ciphertext"),
    Bit(
        25,
        "page_swap_disable",
        "policy.no_page_swap",
        "the hypervisor is kept from moving or swapping the guest's pages",
    ),
)
"""POLICY bits that mean something."""

PLATFORM_BITS = (
    Bit(0, "smt_en", "platform.smt", "a core has two threads"),
    Bit(1, "tsme_en", "platform.tsme", "all memory is encrypted, the hypervisor's too"),
    Bit(2, "ecc_en", "platform.ecc", "memory corrects errors"),
    Bit(3, "rapl_dis", "platform.rapl_dis", "power readings are off"),
    Bit(4, "ciphertext_hiding_dram_en", "platform.hide_ciphertext", "the hypervisor cannot read ciphertext in memory"),
    Bit(5, "alias_check_complete", "platform.alias_check", "memory was checked for aliases (against BadRAM)"),
    Bit(6, "iommu_write_safe", "platform.iommu_safe", "devices cannot write into guest memory unseen"),
    Bit(7, "tio_en", "platform.tio", "trusted I/O is on"),
)
"""PLATFORM_INFO bits that mean something. Later firmware sets others: they are reported, not refused."""

POLICY_MUST_BE_ONE = 1 << 17
POLICY_KNOWN = 0xFFFF | POLICY_MUST_BE_ONE | sum(1 << bit.place for bit in POLICY_BITS)
"""Every other bit of POLICY must be zero."""
