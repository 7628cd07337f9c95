"""Core coordinates of a set of adapters."""

from sstmerge_core.space.core import CoreModule, CoreSpace, View, canonical, core_space, inner_products, similarity

__all__ = ["CoreModule", "CoreSpace", "View", "canonical", "core_space", "inner_products", "similarity"]
