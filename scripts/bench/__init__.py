"""Parts of the benchmarks in scripts/."""
