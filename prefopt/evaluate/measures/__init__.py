"""One file per measure: its dataclass is the one name in `__all__`; settings: `recipes/eval/measure/NAME.yaml`."""
