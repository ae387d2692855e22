"""The mutation check tells what is noticed from what is not, and finds the equations of every method watched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=SCRIPTS, input=text, capture_output=True, text=True, check=False)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import mutation_check

    return mutation_check


DPO = (ROOT / "prefopt" / "losses" / "dpo.py").read_text(encoding="utf-8")
PLANTED = {
    "the file as it is": (DPO, "nothing"),
    "chosen and rejected added": (DPO.replace("(chosen - rejected)", "(chosen + rejected)"), "oracle"),
    "rewards with a gradient": (DPO.replace("logratios.detach()", "logratios"), "test"),
    "the same in other words": (DPO.replace("-logsigmoid(", "0.0 - logsigmoid("), "nothing"),
    "an error before any number": (DPO.replace("-logsigmoid(", "-missing("), "raised"),
    "an error of its import": (DPO.replace("@dataclass", "@missing"), "raised"),
}
"""A copy of dpo, and how it must end."""

ASK = """
import json, sys
from mutation_check import findings
copies = json.load(sys.stdin)
found = dict(findings([("dpo", source) for source in copies], jobs=2))
print(json.dumps([found[place].outcome for place in range(len(copies))]))
"""


def test_each_planted_copy_of_dpo_ends_as_it_must() -> None:
    copies = [source for source, _ in PLANTED.values()]
    assert len(set(copies)) == len(copies)
    result = run("-c", ASK, text=json.dumps(copies))
    assert result.returncode == 0, result.stderr
    outcomes = dict(zip(PLANTED, json.loads(result.stdout), strict=True))
    assert outcomes == {name: outcome for name, (_, outcome) in PLANTED.items()}


METHOD = '''
def __call__(self, responses):
    """Not a - b."""
    assert 1 - 2
    if not 3 - 4:
        raise ValueError(5 - 6)
    kl = responses.per_example(responses.summed(kls), rows)
    return Component("kl", kl, Unit.PAIR, 2.0)
'''


def test_equations_are_broken_and_what_checks_settings_is_not(check: ModuleType) -> None:
    broken = {mutant.what: mutant.source for mutant in check.mutants(METHOD)}
    assert list(broken) == [
        "__call__: mean for sum: responses.per_example(responses.summed(kls), rows)",
        "__call__: mean for sum: responses.summed(kls)",
        '__call__: mean over the batch: Component("kl", kl, Unit.PAIR, 2.0)',
        '__call__: weight dropped: Component("kl", kl, Unit.PAIR, 2.0)',
        "__call__: another unit: Unit.PAIR",
    ]
    assert "((responses.summed(kls)) / responses.lengths)" in broken["__call__: mean for sum: responses.summed(kls)"]
    assert "Unit.EXAMPLE" in broken["__call__: another unit: Unit.PAIR"]
    for source in broken.values():
        assert source != METHOD


def test_equal_expressions_are_told_apart_without_their_lines(check: ModuleType) -> None:
    line = "    x = a - b\n"
    (first, second) = check.mutants(f"def f():\n{line}\n{line}")
    assert (first.what, second.what) == ("f: sign flipped: a - b", "f: sign flipped: a - b [2]")
    assert first.source != second.source


def test_what_is_not_as_it_should_be_is_said(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "EQUIVALENT", {("dpo", what): "" for what in ("same", "not the same", "gone")})
    test, nothing = check.Finding("test", "test_dpo"), check.Finding("nothing")
    found = {"": nothing, "sign": test, "factor": nothing, "same": nothing, "not the same": test}
    found["error"] = check.Finding("raised", "IndexError")
    counts, faults = check.judge("dpo", dict(found))
    assert counts == {"test": 1, "nothing": 1, "equivalent": 2, "raised": 1}
    assert faults == [
        "SURVIVED dpo: factor",
        "NOT EQUIVALENT dpo: not the same: noticed by test_dpo",
        "ONLY RAISES dpo: error: IndexError",
        "NO SUCH COPY dpo: gone",
    ]
    assert check.judge("sft", {"": test})[1] == ["FAILS UNBROKEN sft: test_dpo"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_broken_copy_of_some_methods_is_noticed() -> None:
    """`make mutations` breaks all of them, which takes longer than a test run should."""
    result = run("mutation_check.py", "dpo", "ipo", "kto", "modpo", "orpo", "rrhf", "simpo")
    assert result.returncode == 0, result.stdout + result.stderr
