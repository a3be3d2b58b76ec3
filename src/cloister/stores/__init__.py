"""Where sealed models are kept: folders, web servers, buckets and registries (docs/reference/sources.md).

``open_source`` opens any of them by name. Nothing that comes from there is believed here but sizes that agree with
each other: what a part must be is proven by ``sealed`` against the signed manifest.
"""

from cloister.stores.access import Access, read_access
from cloister.stores.patience import Patience
from cloister.stores.place import ModelUrl, Place, parse_place
from cloister.stores.pull import Pulled, pull
from cloister.stores.push import Pushed, Target, push
from cloister.stores.source import open_source, open_target

__all__ = [
    "Access",
    "ModelUrl",
    "Patience",
    "Place",
    "Pulled",
    "Pushed",
    "Target",
    "open_source",
    "open_target",
    "parse_place",
    "pull",
    "push",
    "read_access",
]
