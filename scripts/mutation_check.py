"""Would a wrong equation be noticed? Break each method in small ways and see that its oracle or a test fails.

    python scripts/mutation_check.py [METHOD ...]

For each file of prefopt/losses: every sign flipped (a + b, a - b, -a), every factor dropped (a * b, a / b, the weight
of a component), every mean taken for a sum and the other way round (over the tokens of a response, over the values of a
component). Each broken copy runs in a process of its own, first against the oracles of tests/oracles, then against
tests/losses. Prints a table and each survivor; exits 1 where one is not in `EQUIVALENT`, or where the unbroken file
fails.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LOSSES = ROOT / "prefopt" / "losses"
NOT_THE_EQUATION = {"__post_init__", "needs", "notes", "num_margins", "_fill"}
"""Functions that check settings, and what tells of them."""

EQUIVALENT: dict[tuple[str, str], str] = {}
"""(method, mutant) that changes no number anybody can see, and why."""


class Mutant(NamedTuple):
    """A broken copy of a method's file. what: where and how."""

    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every small way to break the equations in a file."""
    tree = ast.parse(source)
    seen = {source}
    for place, node in enumerate(ast.walk(tree)):
        for kind, broken in _broken(node):
            changed = copy.deepcopy(tree)
            target = next(n for number, n in enumerate(ast.walk(changed)) if number == place)
            _replace(changed, target, broken)
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text in seen or not _in_equation(tree, node):
                continue
            seen.add(text)
            yield Mutant(f"line {node.lineno}: {kind}: {ast.unparse(node)[:70]}", text)  # type: ignore[attr-defined]


def _broken(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(what was done, what stands there instead)."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign flipped", node.operand
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add | ast.Sub) and not _is_text(node):
            other: ast.operator = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield "sign flipped", ast.BinOp(node.left, other, node.right)
        if isinstance(node.op, ast.Mult | ast.Div):
            yield "factor dropped", node.left
            if isinstance(node.op, ast.Mult):
                yield "factor dropped", node.right
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "responses":
        if node.attr in ("logps", "logratios", "reference_logps"):
            yield "mean for sum", ast.BinOp(node, ast.Div(), _attribute("lengths"))
        if node.attr == "mean_logps":
            yield "sum for mean", _attribute("logps")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean"):
            other_name = "mean" if node.func.attr == "sum" else "sum"
            function = ast.Attribute(node.func.value, other_name, ast.Load())
            yield f"{other_name} for {node.func.attr}", ast.Call(function, node.args, node.keywords)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "summed":
            yield "mean for sum", ast.BinOp(node, ast.Div(), _attribute("lengths"))
        if isinstance(node.func, ast.Name) and node.func.id == "Component":
            yield from _broken_component(node)


def _broken_component(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    name, values, unit, *weight = node.args
    mean = ast.Call(
        ast.Attribute(values, "mean", ast.Load()), [ast.Constant(0)], [ast.keyword("keepdim", ast.Constant(True))]
    )
    yield "mean over the batch", ast.Call(node.func, [name, mean, unit, *weight], node.keywords)
    if weight:
        yield "weight dropped", ast.Call(node.func, [name, values, unit], node.keywords)


def _attribute(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("responses", ast.Load()), name, ast.Load())


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _in_equation(tree: ast.Module, node: ast.AST) -> bool:
    """Whether a node stands in a function that computes something, outside of its assertions."""
    statements = [
        statement
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name not in NOT_THE_EQUATION
        for statement in function.body
        if not isinstance(statement, ast.Assert)
    ]
    return any(part is node for statement in statements for part in ast.walk(statement))


def _replace(tree: ast.AST, old: ast.AST, new: ast.expr) -> None:
    """Put `new`, whose parts are those of the tree that `old` was copied from, in the place of `old`."""

    class Swap(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return copy.deepcopy(new) if node is old else self.generic_visit(node)

    Swap().visit(tree)


def noticed(method: str, source: str) -> bool:
    """Whether an oracle or a test fails with this source for the method; runs in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                found = _fails(method, source)
        except BaseException:  # whatever it was, it was noticed
            found = True
        os.write(write, b"1" if found else b"0")
        os._exit(0)
    os.close(write)
    answer = os.read(read, 1)
    os.close(read)
    os.waitpid(child, 0)
    return answer != b"0"


def _fails(method: str, source: str) -> bool:
    import pytest

    module = importlib.import_module(f"prefopt.losses.{method}")
    exec(compile(source, str(LOSSES / f"{method}.py"), "exec"), module.__dict__)
    if _misses_an_oracle(method):
        return True
    return pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", method, str(ROOT / "tests" / "losses")]) == 1


def _misses_an_oracle(method: str) -> bool:
    from check_oracles import check_file
    from oracle_adapters import ADAPTERS

    for name, adapter in ADAPTERS.items():
        oracle = json.loads((ROOT / "tests" / "oracles" / f"{name}.json").read_text(encoding="utf-8"))
        used = {s["name"] for case in oracle["cases"] for _, s in adapter.settings(case["hyperparameters"])}
        if method in used and any(not check.share <= 1 for check in check_file(name, oracle)):
            return True
    return False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: every file of prefopt/losses")
    import check_oracles  # noqa: F401  # torch and the adapters, once for all children
    from rich.console import Console
    from rich.table import Table

    from prefopt.losses import names

    methods = parser.parse_args(arguments).methods or names()
    table = Table("method", "broken copies", "noticed", "equivalent")
    survivors: list[tuple[str, str]] = []
    for method in methods:
        source = (LOSSES / f"{method}.py").read_text(encoding="utf-8")
        if noticed(method, source):
            survivors.append((method, "nothing: the file as it is fails its oracle or its tests"))
            continue
        broken = list(mutants(source))
        alive = [m.what for m in broken if not noticed(method, m.source)]
        equivalent = [what for what in alive if (method, what) in EQUIVALENT]
        survivors += [(method, what) for what in alive if what not in equivalent]
        table.add_row(method, str(len(broken)), str(len(broken) - len(alive)), str(len(equivalent)))
    console = Console()
    console.print(table)
    for method, what in survivors:
        console.print(f"SURVIVED {method}: {what}", markup=False, highlight=False)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "scripts"))
    sys.exit(main())
