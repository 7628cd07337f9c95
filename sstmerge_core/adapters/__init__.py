"""Read, check, fingerprint and write PEFT LoRA adapters. Only loading and writing values imports torch."""

from sstmerge_core.adapters.archive import zip_adapter
from sstmerge_core.adapters.check import BaseModel, Report, check_many, check_pair, read_base
from sstmerge_core.adapters.fingerprint import adapter_fingerprint, base_fingerprint
from sstmerge_core.adapters.read import AdaptedModule, Adapter, Factors, read
from sstmerge_core.adapters.write import RECORD, Written, write_adapter

__all__ = [
    "RECORD",
    "AdaptedModule",
    "Adapter",
    "BaseModel",
    "Factors",
    "Report",
    "Written",
    "adapter_fingerprint",
    "base_fingerprint",
    "check_many",
    "check_pair",
    "read",
    "read_base",
    "write_adapter",
    "zip_adapter",
]
