"""Adapters and base models by their content, shared between machines: a store behind one address, a cache on each node.

Needs no torch; `fsspec` is imported when a store is spoken to.
"""

from sstmerge_core.content.node import Fetching, cached, fetch, folder, has, put
from sstmerge_core.content.remote import ADAPTER, BASE, KINDS, ContentStore, Manifest, configured, named

__all__ = [
    "ADAPTER",
    "BASE",
    "KINDS",
    "ContentStore",
    "Fetching",
    "Manifest",
    "cached",
    "configured",
    "fetch",
    "folder",
    "has",
    "named",
    "put",
]
