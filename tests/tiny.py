"""A tiny model with a tokenizer, a small preference file, and the real command: what whole-run tests share."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' else '' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_model(folder: Path, seed: int = 0) -> Path:
    """A random two-layer Llama with a byte-level tokenizer, a chat template and no pad token, saved in `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        attention_dropout=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_pairs(file: Path, count: int = 40, seed: int = 0) -> Path:
    """Pairs of very unequal lengths in TRL's plain format."""
    words = random.Random(seed)
    with open(file, "w", encoding="utf-8") as out:
        for number in range(count):
            row = {
                "prompt": f"{number}: " + "ask " * words.randint(1, 12),
                "chosen": "yes " * words.randint(1, 10),
                "rejected": "no " * words.randint(1, 14),
            }
            out.write(json.dumps(row) + "\n")
    return file


def overrides(model: Path, pairs: Path, run_dir: Path, *more: str) -> list[str]:
    """A run of a few seconds on one CPU process."""
    return [
        f"model.path={model}",
        f"data.train=[{{path: {pairs}}}]",
        "data.eval_size=8",
        "data.max_length=160",
        "optim.lr=1e-3",
        "train.batch_size=4",
        "train.epochs=2",
        "train.tokens_per_micro_batch=200",
        "train.save_every=never",
        "launch.device=cpu",
        f"dir={run_dir}",
        *more,
    ]


def environment(cache: Path) -> dict[str, str]:
    """The environment of a child: its own cache, one thread, no network."""
    return {**os.environ, "PREFOPT_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(words: list[str], cache: Path, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """`prefopt WORDS...` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "prefopt.cli", *words],
        cwd=cwd,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def prefopt(words: list[str], cache: Path, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`prefopt WORDS...` to its end."""
    process = start(words, cache, cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def kill_at_step(
    words: list[str], cache: Path, run_dir: Path, step: int, timeout: float = 200, cwd: Path = ROOT
) -> None:
    """Start a run and kill -9 its process group once metrics.jsonl has reached `step`."""
    process = start(words, cache, cwd)
    deadline = time.monotonic() + timeout
    try:
        while last_step(run_dir) < step:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def last_step(run_dir: Path) -> int:
    """The last whole line's step; -1 where there is none yet."""
    lines = metrics(run_dir)
    return lines[-1]["step"] if lines else -1


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # the line being written
            continue
    return found
