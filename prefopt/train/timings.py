"""Names of metrics.jsonl that tell of the machine and not of the training. Imports nothing: a report reads them too."""

from __future__ import annotations

TIMINGS = frozenset({"tokens_per_second", "pairs_per_second", "peak_memory_bytes", "seconds", "data_wait_share"})
"""Keys of metrics.jsonl that depend on the machine; all others are the same in a resumed run, bit for bit."""

CUT_METRICS = frozenset({"imbalance", "padding_share"})
"""Keys that say how well the steps were cut: the same in a resumed run, others for another token budget or layout."""
