"""The oracles in tests/oracles pass, and the checker notices a miss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/check_oracles.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_oracle_passes() -> None:
    result = check()
    assert result.returncode == 0, result.stdout
    for method in ("sft", "dpo", "orpo", "simpo", "end_to_end"):
        assert method in result.stdout


def test_a_whole_model_passes_with_its_head_in_chunks(tmp_path: Path) -> None:
    for name in ("end_to_end.json", "tiny_llama"):
        (tmp_path / name).symlink_to(ROOT / "tests" / "oracles" / name)
    result = check("--dir", str(tmp_path), "--head-rows", "5")
    assert result.returncode == 0, result.stdout
    assert "end_to_end" in result.stdout


def test_a_wrong_number_is_a_miss(tmp_path: Path) -> None:
    oracle = json.loads((ROOT / "tests" / "oracles" / "dpo.json").read_text())
    oracle["cases"][0]["expected"]["losses"][0] *= 1 + 1e-5
    (tmp_path / "dpo.json").write_text(json.dumps(oracle))
    result = check("--dir", str(tmp_path))
    assert result.returncode == 1
    assert "MISS dpo/typical-a: losses" in result.stdout


def test_a_folder_without_oracles_does_not_pass(tmp_path: Path) -> None:
    assert check("--dir", str(tmp_path)).returncode == 1
    assert check("--dir", str(tmp_path / "absent")).returncode == 2
