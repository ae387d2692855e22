"""No file of the package runs what a file says: no pickles, no eval, no shell, no code of a model's own, no prompt."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "prefopt"
FILES = sorted(PACKAGE.rglob("*.py"))

BUILTINS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "runpy"}
CALLS = {
    *("os.system", "os.popen", "torch.load", "torch.hub.load", "yaml.load", "yaml.load_all", "yaml.full_load"),
    *("yaml.unsafe_load", "subprocess.getoutput", "subprocess.getstatusoutput", "importlib.import_module"),
    *("import_module", "instantiate", "hydra.utils.instantiate", "hydra.utils.call", "get_class", "get_method"),
}
FORBIDDEN_KEYWORDS = {"shell": True, "trust_remote_code": True, "weights_only": False, "allow_pickle": True}

ALLOWED = {
    (
        "own_code.py",
        "import_module",
    ): "of a package that the caller states, and a name that the caller has found among its files",
    (
        "registry.py",
        "import_module",
    ): "of a package that the caller states, and a name that is a file of it, looked up before",
    (
        "pairs/score/python.py",
        "import_module",
    ): "of the function that score.function names: who asks for it runs it",
}
"""(file, what) to the reason. An entry that nothing needs fails too."""


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of names; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := dotted(node.value)) else ""
    return ""


def found_in(source: str) -> Iterator[tuple[str, int]]:
    """What a source does that needs trust, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((name, node.lineno) for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in BUILTINS or name in CALLS:
            yield name, node.lineno
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        for key, bad in FORBIDDEN_KEYWORDS.items():
            # What is no constant cannot be judged here, and is not needed either.
            if key in given and not (isinstance(given[key], ast.Constant) and given[key].value is not bad):
                yield f"{key}={ast.unparse(given[key])}", node.lineno
        is_auto = name.split(".")[-2:-1] and name.split(".")[-2].startswith("Auto")
        if is_auto and name.endswith(".from_pretrained") and "trust_remote_code" not in given:
            yield f"{name} without trust_remote_code=False", node.lineno  # it would ask on the terminal


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_file_of_the_package_runs_what_it_reads(file: Path) -> None:
    place = file.relative_to(PACKAGE).as_posix()
    found = [(what, line) for what, line in found_in(file.read_text(encoding="utf-8")) if (place, what) not in ALLOWED]
    assert not found


def test_every_exception_is_needed() -> None:
    needed = {
        (file.relative_to(PACKAGE).as_posix(), what) for file in FILES for what, _ in found_in(file.read_text("utf-8"))
    }
    assert set(ALLOWED) <= needed
    assert all(ALLOWED.values())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "eval('1')",
        "x = exec(y)",
        "import torch\ntorch.load(f)",
        "torch.load(f, weights_only=True)",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=anything)",
        "yaml.load(f, Loader=yaml.SafeLoader)",
        "AutoConfig.from_pretrained(f)",
        "AutoModelForCausalLM.from_pretrained(f, trust_remote_code=True)",
        "transformers.AutoTokenizer.from_pretrained(f, trust_remote_code=wanted)",
        "os.system('ls')",
        "np.load(f, allow_pickle=True)",
        "hydra.utils.instantiate(config)",
        "instantiate(config)",
        "answer = input('run it?')",
    ],
)
def test_the_walk_finds(source: str) -> None:
    assert list(found_in(source))


def test_the_walk_lets_the_rest_be() -> None:
    harmless = [
        "AutoConfig.from_pretrained(f, trust_remote_code=False)",
        "model.eval()",
        "re.compile('a')",
        "torch.compile(f)",
        "yaml.safe_load(f)",
        "subprocess.run(['ls'], shell=False)",
        "np.load(f, allow_pickle=False)",
    ]
    assert not [found for source in harmless for found in found_in(source)]
