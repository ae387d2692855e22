"""Imports only go down the floors, those inside functions too; files stay short; public functions say what they do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "prefopt"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "prefopt": 0,
    "prefopt.errors": 0,
    "prefopt.durable": 0,
    "prefopt.records": 0,
    "prefopt.console": 0,
    "prefopt.output": 0,
    "prefopt.lifetime": 0,
    "prefopt.rank_logs": 0,
    "prefopt.early_rank": 0,
    "prefopt.manifest": 0,
    "prefopt.disk": 0,
    "prefopt.compiled": 0,
    "prefopt.better": 0,
    "prefopt.masking": 0,
    "prefopt.batch": 1,
    "prefopt.needs": 1,
    "prefopt.fill": 1,
    "prefopt.engine_settings": 1,
    "prefopt.settings": 1,
    "prefopt.recipe_files": 1,
    "prefopt.optimiser_bytes": 1,
    "prefopt.loss_file": 2,
    "prefopt.own_code": 2,
    "prefopt.registry": 2,
    "prefopt.pack": 2,
    "prefopt.cache": 2,
    "prefopt.losses": 3,
    "prefopt.data": 3,
    "prefopt.model": 3,
    "prefopt.train": 4,
    "prefopt.pairs": 4,
    "prefopt.demo": 4,
    "prefopt.evaluate": 6,
    "prefopt.peer_names": 0,
    "prefopt.overrides": 5,
    "prefopt.recipe_hints": 5,
    "prefopt.merge": 5,
    "prefopt.recipe_notes": 5,
    "prefopt.config": 5,
    "prefopt.memory_check": 5,
    "prefopt.model_check": 5,
    "prefopt.launch_check": 5,
    "prefopt.engine_check": 5,
    "prefopt.checks": 5,
    "prefopt.data_summary": 5,
    "prefopt.loss_code": 5,
    "prefopt.changes": 5,
    "prefopt.nodes": 5,
    "prefopt.ranks": 5,
    "prefopt.run_folder": 5,
    "prefopt.positions_check": 5,
    "prefopt.lock": 5,
    "prefopt.rank_group": 5,
    "prefopt.handshake": 5,
    "prefopt.company": 5,
    "prefopt.start_ranks": 5,
    "prefopt.accelerate_launch": 5,
    "prefopt.workers": 5,
    "prefopt.stage_config": 5,
    "prefopt.pairs_config": 6,
    "prefopt.pairs_check": 6,
    "prefopt.pairs_dry_run": 6,
    "prefopt.pairs_workers": 6,
    "prefopt.make_pairs": 7,
    "prefopt.repeat": 6,
    "prefopt.run_result": 6,
    "prefopt.launch": 6,
    "prefopt.dry_run": 7,
    "prefopt.sweeps": 7,
    "prefopt.slurm": 7,
    "prefopt.show_data": 7,
    "prefopt.show_losses": 7,
    "prefopt.plan": 7,
    "prefopt.rounds": 7,
    "prefopt.eval_config": 7,
    "prefopt.make_eval": 8,
    "prefopt.report": 8,
    "prefopt.doctor": 8,
    "prefopt.export": 8,
    "prefopt.peers": 8,
    "prefopt.cli_words": 9,
    "prefopt.cli_help": 9,
    "prefopt.cli_report": 9,
    "prefopt.cli_doctor": 9,
    "prefopt.cli_export": 9,
    "prefopt.cli_import": 9,
    "prefopt.cli_train": 9,
    "prefopt.completion": 9,
    "prefopt.cli_completion": 9,
    "prefopt.api": 9,
    "prefopt.api_rows": 9,
    "prefopt.cli": 10,
    "prefopt.__main__": 10,
    "prefopt.job": 10,
}
"""Room to floor. A room is a package of prefopt, or a module that lies beside the packages."""

SIDE_BY_SIDE = ("prefopt.losses", "prefopt.data", "prefopt.model")
"""Rooms of which none imports another."""

HEAVY = ("torch", "transformers", "datasets", "accelerate", "deepspeed", "peft", "hydra", "omegaconf", "numpy")
"""Never imported when these rooms are imported."""
HEAVY_ROOMS = ("prefopt.evaluate", "prefopt.api_rows")
LIGHT_ROOMS = [room for room, floor in FLOORS.items() if floor in (0, 1) or (floor >= 5 and room not in HEAVY_ROOMS)]


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported module; `from package import module` counts as the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            assert node.module is not None
            if node.module == "prefopt":
                yield from (f"prefopt.{alias.name}" for alias in node.names if not alias.name.startswith("_"))
            else:
                yield node.module


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not in functions, not under TYPE_CHECKING."""
    for node in tree.body:
        is_for_checkers = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_for_checkers and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_room_is_on_a_floor(file: Path) -> None:
    assert room_of(module_of(file)) in FLOORS, "a new room needs a floor in tests/house/test_floors.py"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_down(file: Path) -> None:
    module = module_of(file)
    room = room_of(module)
    for imported in imports(tree_of(file)):
        other = room_of(imported)
        if not imported.startswith("prefopt.") or other == room:
            continue
        assert other in FLOORS, f"{module} imports {imported}, which has no floor"
        assert FLOORS[other] <= FLOORS[room], f"{module} (floor {FLOORS[room]}) imports {imported} ({FLOORS[other]})"
        assert not {room, other} <= set(SIDE_BY_SIDE), f"{module} imports {imported}: rooms beside each other"


@pytest.mark.parametrize("file", [f for f in FILES if room_of(module_of(f)) in LIGHT_ROOMS], ids=module_of)
def test_light_rooms_import_nothing_heavy(file: Path) -> None:
    for statement in at_import(tree_of(file)):
        for imported in imports(statement):
            assert imported.split(".")[0] not in HEAVY, f"{module_of(file)} imports {imported} at once"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_file_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_public_functions_say_what_they_do(file: Path) -> None:
    tree = tree_of(file)
    assert ast.get_docstring(tree), f"{file} has no docstring"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module_of(file)}.{node.name} has no docstring"
