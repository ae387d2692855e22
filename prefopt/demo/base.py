"""The demo's base model: a byte-level BPE and a two-layer Llama, pretrained on the world's own text.

`write_empty` makes the folder without weights, from `tokenizers` and the standard library alone. The command
`python -m prefopt.demo.base DIR` adds the weights; it is a process of its own, so that whoever resolves a run never
imports torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prefopt.demo import manners

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
VOCABULARY = 584  # every word of the world that is said often is one token
POSITIONS = 256
NUM_TOKENIZER_LINES = 4000
WEIGHTS = "model.safetensors"
_PROGRESS_EVERY = 50

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.1,  # the usual 0.02 makes so narrow a model learn the facts more slowly
    "tie_word_embeddings": True,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": PAD_ID,
}


class Pretraining(NamedTuple):
    """How the base is trained. batch_size: lines a step. peak_lr: of a one-cycle schedule. seed: weights and text.

    Longer is not better: the base has to know the facts, and to be as wrong and as rude as the text it read.
    """

    num_steps: int = 300
    batch_size: int = 32
    peak_lr: float = 1e-2
    seed: int = 0


def write_empty(folder: Path) -> None:
    """Configuration and tokenizer of the base, without weights, into an existing folder."""
    make_tokenizer().save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    generation_config = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (
        ("config.json", CONFIG),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation_config),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE learnt from the world's text; like Llama's it puts BOS in front of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(manners.pretraining_lines(NUM_TOKENIZER_LINES, seed=0), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def pretrain(folder: Path, how: Pretraining) -> None:
    """Add weights to a folder that `write_empty` filled: next-token prediction on whole lines, each closed by EOS."""
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(how.seed)
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.peak_lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.peak_lr, total_steps=how.num_steps, pct_start=0.1)
    start = time.perf_counter()
    for step, (inputs, targets) in enumerate(_batches(folder, how), start=1):
        logits = model(input_ids=inputs, use_cache=False).logits
        # Padding lies at the end, where causal attention keeps it from every real token.
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD_ID)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        _show_progress(step, how.num_steps, loss.item(), time.perf_counter() - start)
    # Not save_pretrained: it would rewrite config.json, and import whatever accelerators are installed.
    tied = "lm_head.weight"  # is the embedding; a safetensors file holds no tensor twice
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != tied}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _batches(folder: Path, how: Pretraining) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets [batch_size, longest line - 1] of every step; no line is drawn for two steps."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=PAD_ID, pad_token=PAD)
    lines = [line + EOS for line in manners.pretraining_lines(how.num_steps * how.batch_size, how.seed)]
    for start in range(0, len(lines), how.batch_size):
        encodings = tokenizer.encode_batch(lines[start : start + how.batch_size])
        ids = torch.tensor([encoding.ids for encoding in encodings])
        yield ids[:, :-1], ids[:, 1:]


def _show_progress(step: int, num_steps: int, loss: float, seconds: float) -> None:
    """One line that is rewritten on a terminal; only its last state elsewhere."""
    if step % _PROGRESS_EVERY and step != num_steps:
        return
    is_last, is_terminal = step == num_steps, sys.stderr.isatty()
    if is_last or is_terminal:
        start = "\r" if is_terminal else ""
        line = f"{start}demo base model: step {step}/{num_steps}, loss {loss:.2f}, {seconds:.0f} s"
        print(line, end="\n" if is_last else "", file=sys.stderr, flush=True)


def main(folder: str) -> int:
    """The child process. One thread, because the same weights should come out again and the cores may be busy."""
    print("demo base model: made once, then kept in the cache", file=sys.stderr, flush=True)
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pretrain(Path(folder), Pretraining())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
