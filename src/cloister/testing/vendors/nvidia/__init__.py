"""A synthetic NVIDIA: own device and manifest roots, chips of each architecture, reports, manifests, revocation.

Structurally exact and worth nothing: whoever wants any evidence makes it here. ``issuing`` has certificates, ``device``
chips and reports, ``manifests`` signed manifests, ``vendor`` all of it together.
"""

from __future__ import annotations

from cloister.testing.vendors.nvidia.device import Device
from cloister.testing.vendors.nvidia.issuing import Issuer
from cloister.testing.vendors.nvidia.vendor import NvidiaAttester, NvidiaVendor

__all__ = ["Device", "Issuer", "NvidiaAttester", "NvidiaVendor"]
