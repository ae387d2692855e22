"""A recipe file from an account: group choices, and each setting under a comment that says where it is from."""

from __future__ import annotations

from typing import Any

from prefopt.peers.taking import Taking

SECTIONS = ("model", "data", "loss", "optim", "train", "sample")


def recipe_text(t: Taking, peer: str, file: str) -> str:
    """The text of the recipe. peer: whose file it is. file: its path, as it was given."""
    lines = ["# @package _global_", f"# {peer}: {file}", f"# source: {file}, read by prefopt import.", "", "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in sorted(t.groups.items())]
    lines.append("")
    for section in SECTIONS:
        keys = [key for key in t.settings if key.partition(".")[0] == section]
        if keys:
            lines.append(f"{section}:")
        for key in keys:
            lines.append(f"  # {_capital(t.comments[key])}")
            lines.append(f"  {key.partition('.')[2]}: {flow(t.settings[key])}")
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value on one line of YAML; numbers so that YAML reads a number."""
    import yaml

    if isinstance(value, float):
        return f"{value:.10g}" if "e" not in f"{value:.10g}" else _exponent(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def _exponent(value: float) -> str:
    """`5.0e-07`: YAML takes `5e-07` for text."""
    mantissa, _, exponent = f"{value:.10g}".partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"


def _capital(text: str) -> str:
    """A sentence; what begins with a key stays as it is."""
    flat = " ".join(text.split())
    return flat[:1].upper() + flat[1:] if flat.startswith(("from ", "the ", "as ")) else flat
