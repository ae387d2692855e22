"""Adapters between recorded oracles and prefopt: what a file's inputs, settings and results are called here.

`check_oracles.py` runs them. ADAPTERS is keyed by the oracle's file name, END_TO_END by a case's name in
end_to_end.json. A method may have several files, a file belongs to one family.
"""

from __future__ import annotations

from oracle_adapters import labels_and_lists, pairs, reference_pairs

ADAPTERS = pairs.ADAPTERS | reference_pairs.ADAPTERS | labels_and_lists.ADAPTERS
END_TO_END = pairs.END_TO_END | reference_pairs.END_TO_END | labels_and_lists.END_TO_END
