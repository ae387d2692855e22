"""Would a wrong equation be noticed? Break each method in small ways and see that its oracle or a test fails.

    python scripts/mutation_check.py [METHOD ...]

For each file of prefopt/losses: signs flipped, factors, powers, clamps and weights dropped, means taken for sums and
the other way round (over the tokens of a response, the values of a prompt, the batch), terms counted in another unit,
chosen and rejected exchanged, branches exchanged, comparisons changed, gradients let through. Each broken copy runs in
a process of its own: first against the oracles of tests/oracles, then against the tests of tests/losses that concern
the method, until a number is wrong. A copy that raises an error and never gives a wrong number has not shown that
anybody looks at its numbers: it is listed, and does not count as noticed.

Prints a table, and each copy that was not noticed; exits 1 where there is one that is not in `EQUIVALENT`, where an
entry of `EQUIVALENT` is noticed or gone, and where an unbroken file fails.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LOSSES = ROOT / "prefopt" / "losses"
SHARED = "numerics"
"""The file that the methods have in common: its copies meet every oracle and every test."""
OF_EVERY_METHOD = frozenset({SHARED, "mix"})
"""Files whose tests may name any method."""
NOT_THE_EQUATION = frozenset(
    ["__post_init__", "needs", "notes", "num_margins", "_fill", "_losses", "_complete", "_refuse_what_cannot_be_mixed"]
)
"""Functions that check or complete settings, and what tells of them."""

EQUIVALENT: dict[tuple[str, str], str] = {
    ("bco_pair", "observe: sides exchanged: responses.paired(self.beta * responses.logratios.detach())"): (
        "what follows is the sum of both sides"
    ),
    ("wpo", "weights: sides exchanged: responses.paired(likely)"): "what follows is the sum of both sides",
    ("ld_dpo", "_mean_over_pairs: clamp dropped: times.clamp(min=1)"): (
        "0 / 0 would stand where the other branch is taken, and nothing here has a gradient"
    ),
    ("numerics", "log1mexp: comparison changed: x > -math.log(2.0)"): "both branches have the same value there",
    ("numerics", "log1mexp: sign flipped: -1.0"): (
        "a stand-in where the other branch is taken: its gradient is 0 times a finite number"
    ),
    ("numerics", "log1mexp: sign flipped: -1.0 [2]"): "as above",
}
"""(method, `Mutant.what`) that changes no number anybody can see, and why."""


# --- how a file is broken ---


class Mutant(NamedTuple):
    """A broken copy of a method's file. what: function, kind, and the expression; numbered where that is not unique."""

    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every small way to break the equations in a file, as an edit of its text."""
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines))]
    times: Counter[str] = Counter()
    for function, node in _equations(ast.parse(source)):
        for kind, broken in _broken(source, node):
            start = starts[node.lineno - 1] + node.col_offset
            stop = starts[node.end_lineno - 1] + node.end_col_offset
            text = f"{source[:start]}({broken}){source[stop:]}"
            ast.parse(text)  # an edit that is not Python is an error of this script
            what = f"{function}: {kind}: {' '.join(source[start:stop].split())}"
            times[what] += 1
            yield Mutant(what if times[what] == 1 else f"{what} [{times[what]}]", text)


def _equations(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """(function, expression) for every expression that computes something; assertions and refusals do not."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name not in NOT_THE_EQUATION:
            for statement in function.body:
                yield from ((function.name, node) for node in _expressions(statement))


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assert | ast.JoinedStr) or (
        isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)
    ):
        return
    if isinstance(node, ast.Attribute) and node.attr in ("dtype", "device", "shape"):
        return
    if isinstance(node, ast.expr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _expressions(child)


def _broken(source: str, node: ast.expr) -> Iterator[tuple[str, str]]:
    """(what was done, what stands there instead)."""

    def text(part: ast.AST) -> str:
        return f"({ast.get_source_segment(source, part)})"

    match node:
        case ast.UnaryOp(op=ast.USub(), operand=x):
            yield "sign flipped", text(x)
        case ast.BinOp(left=a, op=ast.Add() | ast.Sub() as op, right=b) if not _is_text(a):
            yield "sign flipped", f"{text(a)} {'-' if isinstance(op, ast.Add) else '+'} {text(b)}"
        case ast.BinOp(left=a, op=ast.Mult() | ast.MatMult() as op, right=b):
            sign = "*" if isinstance(op, ast.Mult) else "@"
            # One in the shape of what is dropped, so that the copy still runs.
            yield "left factor dropped", f"({text(a)} * 0 + 1) {sign} {text(b)}"
            yield "right factor dropped", f"{text(a)} {sign} ({text(b)} * 0 + 1)"
        case ast.BinOp(left=a, op=ast.Div()):
            yield "divisor dropped", text(a)
        case ast.BinOp(left=a, op=ast.Pow()):
            yield "power dropped", text(a)
        case ast.IfExp(test=test, body=a, orelse=b) if not _is_equality(test):
            yield "branches exchanged", f"{text(b)} if {text(test)} else {text(a)}"
        case ast.Compare(left=a, ops=[op], comparators=[b]) if type(op) in OTHER_SIGN:
            yield "comparison changed", f"{text(a)} {OTHER_SIGN[type(op)]} {text(b)}"
        case ast.Subscript(value=ast.Attribute(attr="pairs" | "ranked_pairs") as x, slice=ast.Tuple() as places):
            yield "sides exchanged", f"{text(x)}.flip(1)[{ast.get_source_segment(source, places)}]"
        case ast.Attribute(value=ast.Name(id="responses"), attr="logps" | "logratios" | "reference_logps"):
            yield "mean for sum", f"{text(node)} / responses.lengths"
        case ast.Attribute(value=ast.Name(id="responses"), attr="mean_logps"):
            yield "sum for mean", "responses.logps"
        case ast.Attribute(value=ast.Name(id="Unit"), attr=unit):
            yield "another unit", f"Unit.{OTHER_UNIT[unit]}"
        case ast.Call(func=ast.Name(id="Component"), args=[name, values, unit, *weight]):
            start, mean = f"Component({text(name)}, ", f"{text(values)}.mean(0, keepdim=True)"
            yield "mean over the batch", f"{start}{', '.join([mean, *map(text, [unit, *weight])])})"
            if weight:
                yield "weight dropped", f"{start}{text(values)}, {text(unit)})"
        case ast.Call(func=ast.Attribute(value=x, attr=called), args=arguments):
            yield from _broken_call(text(x), called, [text(a) for a in arguments], text(node))


def _broken_call(x: str, called: str, arguments: list[str], whole: str) -> Iterator[tuple[str, str]]:
    """Of a call x.called(*arguments)."""
    match called:
        case "sum" | "mean":
            other = "mean" if called == "sum" else "sum"
            yield f"{other} for {called}", f"{x}.{other}({', '.join(arguments)})"
        case "summed":
            yield "mean for sum", f"{whole} / responses.lengths"
        case "per_example":
            values, rows = arguments
            yield "mean for sum", f"{whole} / responses.per_example({values} * 0 + 1, {rows}).clamp(min=1)"
        case "paired" | "unbind":
            yield "sides exchanged", f"{whole}[::-1]"
        case "where" if len(arguments) == 3:
            condition, a, b = arguments
            yield "branches exchanged", f"{x}.where({condition}, {b}, {a})"
        case "detach":
            yield "gradient let through", x
        case "clamp":
            yield "clamp dropped", x
        case "square":
            yield "power dropped", x


OTHER_UNIT = {
    "TOKEN": "EXAMPLE",
    "SEQUENCE_TOKEN": "TOKEN",
    "RESPONSE": "EXAMPLE",
    "DESIRABLE": "RESPONSE",
    "UNDESIRABLE": "RESPONSE",
    "DESIRABLE_TOKEN": "DESIRABLE",
    "PAIR": "EXAMPLE",
    "EXAMPLE": "PAIR",
}
"""The unit that each is most easily taken for."""


OTHER_SIGN: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
}
"""Equality moved to the other side, or turned round."""


def _is_equality(test: ast.expr) -> bool:
    """Whether turning the comparison round says the same as exchanging what it chooses between."""
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.NotEq)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


# --- whether it is noticed ---


class Finding(NamedTuple):
    """outcome: oracle or test (a number is wrong there), raised (an error, and no wrong number), or nothing. where."""

    outcome: str
    where: str = ""

    @property
    def is_noticed(self) -> bool:
        return self.outcome in ("oracle", "test")


def findings(copies: Sequence[tuple[str, str]], jobs: int) -> Iterator[tuple[int, Finding]]:
    """(place, what was found) of each (method, source), as they end; every copy in a process of its own."""
    context = get_context("fork")
    _load_what_all_copies_share()
    waiting = iter(enumerate(copies))
    running: dict[Any, tuple[int, Any]] = {}
    while True:
        while len(running) < jobs and (copy := next(waiting, None)):
            place, (method, source) = copy
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_report, args=(sender, method, source))
            process.start()
            sender.close()
            running[receiver] = place, process
        if not running:
            return
        ended: list[Any] = connection.wait(list(running))
        for receiver in ended:
            place, process = running.pop(receiver)
            try:
                finding = receiver.recv()
            except EOFError:
                finding = Finding("raised", "its process ended without an answer")
            process.join()
            yield place, finding


PROFILE = "mutation"
"""Of hypothesis: that an example fails is enough, the smallest one is not asked for."""

_ORACLES: dict[str, tuple[dict, frozenset[str]]] = {}
"""Of each file of tests/oracles that has an adapter: what it holds, and the methods that its cases ask for."""


def _load_what_all_copies_share() -> None:
    """torch and hypothesis, which take seconds to import, and the oracles."""
    from check_oracles import ADAPTERS
    from hypothesis import Phase, settings

    settings.register_profile(PROFILE, deadline=None, derandomize=True, max_examples=20, phases=[Phase.generate])

    for name, adapter in ADAPTERS.items():
        oracle = json.loads((ROOT / "tests" / "oracles" / f"{name}.json").read_text(encoding="utf-8"))
        used = (s["name"] for case in oracle["cases"] for _, s in adapter.settings(case["hyperparameters"]))
        _ORACLES[name] = oracle, frozenset(used)


def _report(sender: connection.Connection, method: str, source: str) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        sender.send(_ask(method, source))


def _ask(method: str, source: str) -> Finding:
    try:
        _install(method, source)
    except Exception as error:  # the copy's
        return Finding("raised", f"import: {error!r}")
    by_oracles = _ask_oracles(method)
    if by_oracles.is_noticed:
        return by_oracles
    by_tests = _ask_tests(method)
    return by_oracles if by_tests.outcome == "nothing" else by_tests


def _install(method: str, source: str) -> None:
    """Put a copy in the place of a method, for all that import it from here on."""
    import prefopt.losses

    for name in list(sys.modules):
        if name.startswith("prefopt.losses.") or name.split(".")[0] in ("check_oracles", "oracle_adapters"):
            del sys.modules[name]
    name = f"prefopt.losses.{method}"
    module = types.ModuleType(name)
    module.__file__ = str(LOSSES / f"{method}.py")
    sys.modules[name] = module
    setattr(prefopt.losses, method, module)
    exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)


def _ask_oracles(method: str) -> Finding:
    from check_oracles import check_file

    raised = Finding("nothing")
    for name, (oracle, methods) in _ORACLES.items():
        if method in methods or method == SHARED:
            try:
                for check in check_file(name, oracle):
                    if not check.share <= 1:
                        return Finding("oracle", f"{check.case}: {check.what}")
            except Exception as error:  # the copy's; other files and the tests may still show a number
                raised = Finding("raised", f"{name}: {error!r}")
    return raised


def _ask_tests(method: str) -> Finding:
    import pytest

    from prefopt.losses import names

    watch = _Watch(method, frozenset(names()), (AssertionError, pytest.fail.Exception), pytest.skip.Exception)
    options = ["--assert=plain", "-p", "no:cacheprovider", f"--hypothesis-profile={PROFILE}"]
    pytest.main([*options, str(ROOT / "tests" / "losses")], plugins=[watch])
    if not watch.num_run and watch.finding.outcome == "nothing":
        raise RuntimeError("no test was run")
    return watch.finding


class _Watch:
    """Has pytest run the tests that concern a method, until one of them finds a number wrong."""

    def __init__(
        self,
        method: str,
        methods: frozenset[str],
        wrong: tuple[type[BaseException], ...],
        skipped: type[BaseException],
    ) -> None:
        self.method, self.methods, self.wrong, self.skipped = method, methods, wrong, skipped
        self.finding, self.num_run = Finding("nothing"), 0

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Leave out what is parametrised by other methods alone; put first what names this one, last what is slow."""
        named = {item: self._named(item.callspec.params) if hasattr(item, "callspec") else set() for item in items}
        items[:] = sorted(
            (i for i in items if not named[i] or self.method in named[i] or self.method in OF_EVERY_METHOD),
            key=lambda i: (getattr(i.obj, "is_hypothesis_test", False), self.method not in named[i]),
        )

    def _named(self, value: Any) -> set[str]:
        """The methods that a parameter of a test names."""
        if isinstance(value, str):
            return {value} & self.methods
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return set().union(*map(self._named, parts))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.finding = Finding("raised", f"{report.nodeid}: {report.longrepr}")

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        self.num_run += call.when == "call"
        if call.excinfo is None or isinstance(call.excinfo.value, self.skipped) or item.session.shouldstop:
            return
        in_the_copy = Path(call.excinfo.traceback[-1].path).parent == LOSSES
        if isinstance(call.excinfo.value, self.wrong) and not in_the_copy:
            self.finding = Finding("test", item.nodeid)
            item.session.shouldstop = "noticed"
        else:
            self.finding = Finding("raised", f"{item.nodeid}: {call.excinfo.exconly()}")


# --- all of it ---


def judge(method: str, found: dict[str, Finding]) -> tuple[Counter[str], list[str]]:
    """How many copies of a method ended how, and a line for each thing that is not as it should be.

    found: by `Mutant.what`, "" for the unbroken file.
    """
    counts: Counter[str] = Counter()
    faults = []
    unbroken = found.pop("")
    if unbroken.outcome != "nothing":
        faults.append(f"FAILS UNBROKEN {method}: {unbroken.where}")
    for what, finding in found.items():
        known = (method, what) in EQUIVALENT
        counts["equivalent" if known else finding.outcome] += 1
        if known and finding.is_noticed:
            faults.append(f"NOT EQUIVALENT {method}: {what}: noticed by {finding.where}")
        elif finding.outcome == "raised":
            faults.append(f"ONLY RAISES {method}: {what}: {finding.where}")
        elif not known and not finding.is_noticed:
            faults.append(f"SURVIVED {method}: {what}")
    faults += [f"NO SUCH COPY {m}: {what}" for m, what in EQUIVALENT if m == method and what not in found]
    return counts, faults


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: every file of prefopt/losses")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes; default: all cores")
    parser.add_argument("--list", action="store_true", help="print every copy and where it was noticed")
    options = parser.parse_args(arguments)
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from prefopt.losses import names

    methods = options.methods or [*names(), SHARED]
    tasks, whats = [], []
    for method in methods:
        source = (LOSSES / f"{method}.py").read_text(encoding="utf-8")
        for mutant in (Mutant("", source), *mutants(source)):
            tasks.append((method, mutant.source))
            whats.append(mutant.what)
    found: dict[str, dict[str, Finding]] = {method: {} for method in methods}
    progress = track(findings(tasks, options.jobs), "breaking", len(tasks), console=Console(stderr=True))
    for place, finding in progress:
        found[tasks[place][0]][whats[place]] = finding
        if options.list:
            print(tasks[place][0], whats[place] or "unbroken", *finding, sep=" | ")

    columns = ("oracle", "test", "equivalent")
    table = Table("method", "copies", "noticed by oracle", "by test", "equivalent")
    total: Counter[str] = Counter()
    faults: list[str] = []
    for method in methods:
        counts, more = judge(method, found[method])
        table.add_row(method, str(counts.total()), *(str(counts[c]) for c in columns))
        total += counts
        faults += more
    table.add_section()
    table.add_row("all", str(total.total()), *(str(total[c]) for c in columns))
    Console().print(table)
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
