"""SST-Merge: merge a safety LoRA adapter where it costs little usefulness, and measure what it cost."""

__version__ = "0.1.0"
