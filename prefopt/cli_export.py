"""The words of `prefopt export`."""

from __future__ import annotations

from prefopt.cli_words import Parser
from prefopt.errors import UserError

HELP = """\
usage: prefopt export RUN|MODEL out=FOLDER [step=N] [merge=false] [dtype=NAME] [push=USER/NAME] [gguf=FILE]

A model for others: adapters merged into the weights they belong to, safetensors, tokenizer with its chat template, and
the card. A fresh process loads the folder and must find the log-probabilities (or rewards) of the original before the
folder gets its name. RUN: a run that is done. MODEL: any model folder, adapters, or hub name. It takes 4 bytes of
memory per weight and no GPU. A run's final model is whole whatever engine trained it; a checkpoint's parts, sharded or
not, are put together by step=N.

  prefopt export runs/RUN out=exported
  prefopt export runs/RUN out=exported dtype=bfloat16 push=USER/NAME
  prefopt export runs/RUN step=400 out=at400

keys:
  out             the new folder
  step            the weights of this checkpoint instead of the final model
  merge           true where there are adapters; false keeps them apart
  dtype           of the weights: stored (bfloat16 where the base is kept so, else float32), float32, bfloat16
  push            a repository on the hub, made where there is none; private=false makes a public one
  gguf            a GGUF file besides, by llama.cpp's convert_hf_to_gguf.py on the PATH or gguf.converter=PATH

exit codes: 0 done, 1 the copy is not the original, a full disk, a hub that refuses; 2 misuse
"""


def export(words: list[str]) -> int:
    """Run the command; its exit code.

    Raises: UserError for words that it has not, and as `prefopt.export.make.export`.
    """
    options = Parser("export").read(words)
    if options.help or not words:
        print(HELP, end="")
        return 0
    if options.config_dir:
        raise UserError("--config-dir: an export reads a model and no recipes", "leave it out")
    from rich.console import Console

    from prefopt.export.make import export as make
    from prefopt.export.settings import read_words

    path, settings = read_words(options.overrides)
    return make(path, settings, Console())
