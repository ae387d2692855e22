"""GGUF by llama.cpp's own converter, which is a script of its repository and in no package: found, never fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.console import PLAIN
from prefopt.errors import RunError, UserError
from prefopt.export.settings import GgufSettings

if TYPE_CHECKING:
    from rich.console import Console

SCRIPT = "convert_hf_to_gguf.py"


def find_converter(settings: GgufSettings) -> Path:
    """The script, by gguf.converter or on the PATH.

    Raises: UserError where it is not there, or the file to write is.
    """
    if Path(settings.file).exists():
        raise UserError(f"gguf={settings.file}: there is something already", "another name, or remove it first")
    if settings.converter is not None:
        script = Path(settings.converter).expanduser()
        if not script.is_file():
            raise UserError(f"gguf.converter={settings.converter}: there is no such file", f"the path of {SCRIPT}")
        return script
    found = shutil.which(SCRIPT)
    if found is None:
        raise UserError(
            f"gguf={settings.file}: {SCRIPT} is not on the PATH",
            "git clone https://github.com/ggml-org/llama.cpp, install its requirements.txt, and name the script:"
            f" gguf.converter=llama.cpp/{SCRIPT}",
        )
    return Path(found)


def convert(script: Path, model: Path, file: Path, console: Console) -> None:
    """Write `file` from the exported folder; the converter's own words are shown where it fails.

    Raises: RunError where it does, with its last line; the exported folder stays.
    """
    command = [sys.executable, str(script), str(model), "--outfile", str(file), "--outtype", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0 or not file.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise RunError(
            f"gguf={file}: {script.name} failed: {said[-1][:300]}",
            f"{model} is whole; `{' '.join(command)}` shows all that it says",
        )
    console.print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, by {script}", **PLAIN)
