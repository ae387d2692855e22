"""`prefopt report`: runs side by side, as a table, as figures, and as one page."""
