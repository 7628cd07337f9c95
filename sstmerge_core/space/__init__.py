"""Core coordinates of a set of adapters."""

from sstmerge_core.space.core import CoreModule, CoreSpace, core_space, similarity

__all__ = ["CoreModule", "CoreSpace", "core_space", "similarity"]
