"""The audit log as others read it: the public formats of C2SP, pure (docs/spec/transparency-log.md).

``note`` signed notes, ``checkpoint`` tree heads, ``cosignature`` what a witness adds to one, ``advance`` a
checkpoint with its consistency proof, ``tiles`` hashes and entries as files, ``proof`` one entry provable
offline, ``witness`` when to cosign.

The tree itself is ``lending.merkle``, an entry ``lending.audit``. Not done here: fetching, storing, a clock.
"""

from __future__ import annotations
