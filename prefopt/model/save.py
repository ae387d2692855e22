"""A trained model as a Hugging Face folder, and a probe by which a fresh process can tell that it is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

from prefopt.batch import Encoded, Outputs
from prefopt.errors import RunError
from prefopt.model.policy import Policy
from prefopt.settings import ModelSettings

PROBE_FILE = "probe.safetensors"


def save_model(
    policy: Policy,
    state: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    start: Path,
    folder: Path,
    card: str,
) -> None:
    """Write weights (or adapters), configuration, tokenizer and model card into `folder`.

    state: the whole model's tensors, gathered from wherever they were sharded. start: the folder the run began with;
    its dropout settings, which training switched off, go back into the saved configuration. card: README.md.
    """
    original = AutoConfig.from_pretrained(start, trust_remote_code=False).to_dict()
    config = policy.pretrained.config
    off = {k: getattr(config, k) for k, v in original.items() if "dropout" in k or k.endswith("_pdrop")}
    for name in off:
        setattr(config, name, original[name])
    try:
        policy.model.save_pretrained(str(folder), state_dict=dict(state))
    finally:
        for name, value in off.items():
            setattr(config, name, value)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~_umask())  # safetensors leaves 0600, which other users of a cluster cannot read


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_probe(path: Path, examples: Sequence[Encoded], live: Outputs, tolerance: float) -> None:
    """What a fresh process must find: token ids of a few responses and what the live model says of them.

    live: log-probabilities of the responses' tokens, or rewards of a scalar head. tolerance: largest difference
    allowed, nats per token or in a reward.
    """
    sequences = [(e.prompt, r) for e in examples for r in e.responses]
    tensors = {
        "ids": torch.tensor([t for prompt, response in sequences for t in prompt + response]),
        "prompt_lengths": torch.tensor([len(prompt) for prompt, _ in sequences]),
        "response_lengths": torch.tensor([len(response) for _, response in sequences]),
        "logps" if live.rewards is None else "rewards": live.probe.detach().double().cpu().contiguous(),
        "tolerance": torch.tensor([tolerance], dtype=torch.float64),
    }
    save_file(tensors, path)


def verify(folder: Path, probe: Path, settings: ModelSettings) -> float:
    """Reload `folder` in a fresh process and compare with the probe; returns the largest difference (nats or reward).

    settings: by which the model was loaded: adapters are judged over weights held as those they were trained over.

    Raises: RunError where the model does not load or is not the one that was trained.
    """
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "PET_", "TORCHELASTIC_"))}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"):
        ours.pop(name, None)
    how = (settings.base, settings.dtype)
    command = [sys.executable, "-m", "prefopt.model.verify", str(folder), str(probe), *how]
    # SLURM and terminals signal every process of a run. The run takes note and goes on to its end, and so must this.
    for _ in range(3):
        result = subprocess.run(command, env=ours, capture_output=True, text=True, check=False)
        if -result.returncode not in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            break
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        print(result.stderr.rstrip(), file=sys.stderr)  # all of it: the folder may be gone when somebody wants to know
        raise RunError(f"the saved model in {folder} is not the trained one: {last}", "do not use it")
    return json.loads(result.stdout.splitlines()[-1])["largest_difference"]
