"""One measured training with TRL, in this process, with TRL's own trainers and collators: JOB.json -> RESULT.json."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.job import Job, Result, Step, peak_memory, train_seconds


def measure(job: Job) -> Result:
    """Train on the rows in the order of the file and time each step, from the end of one to the end of the next."""
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(job.threads)
    rows = [json.loads(line) for line in Path(job.rows).read_text().splitlines()]
    cls, config = _trainer(job)
    tokens = _Counter()

    class InOrder(cls):
        def _get_train_sampler(self, *args, **kwargs):
            return SequentialSampler(self.train_dataset)

    class Stamps(TrainerCallback):
        def __init__(self) -> None:
            self.stamps: list[tuple[float, float]] = []
            self.losses: list[float] = []
            self.peak = 0

        def on_train_begin(self, args, state, control, **kwargs):
            self.on_step_end(args, state, control)

        def on_step_end(self, args, state, control, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.stamps.append((time.perf_counter(), time.process_time()))
            self.peak = peak_memory()
            tokens.end_step()

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

    stamps = Stamps()
    held = torch.bfloat16 if job.lora_rank else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=held)
    start = time.perf_counter()
    trainer = InOrder(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([{k: r[k] for k in ("prompt", "chosen", "rejected")} for r in rows]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[stamps],
        peft_config=_adapters(job),
    )
    built = time.perf_counter() - start
    collate = trainer.data_collator

    def counted(features):
        batch = collate(features)
        tokens.see(batch)
        return batch

    trainer.data_collator = counted
    trainer.train()
    times = train_seconds(stamps.stamps)
    per_step = tokens.per_step[1:]
    steps = [Step(loss, *t, n) for loss, t, n in zip(stamps.losses, times, per_step, strict=True)]
    precomputes = job.peer.get("precompute_ref_log_probs", False)
    return Result(steps, stamps.peak, built if precomputes else 0.0, [r["id"] for r in rows], tokens.padding)


def _adapters(job: Job):
    """The same adapters as prefopt's `all-linear`; None where all weights are trained."""
    if not job.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=job.lora_rank, lora_alpha=2 * job.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")


class _Counter:
    """Tokens of what the collator makes, padding included."""

    def __init__(self) -> None:
        self.per_step: list[int] = []
        self._open = self._all = self._real = 0

    def see(self, batch: dict) -> None:
        masks = [v for k, v in batch.items() if k.endswith("attention_mask") and not k.startswith("prompt")]
        self._open += sum(mask.numel() for mask in masks)
        self._all += sum(mask.numel() for mask in masks)
        self._real += sum(int(mask.sum()) for mask in masks)

    def end_step(self) -> None:
        self.per_step.append(self._open)
        self._open = 0

    @property
    def padding(self) -> float:
        return 1 - self._real / self._all


def _trainer(job: Job):
    """The trainer and its configuration, the same optimiser and schedule as prefopt's."""
    common = {
        "output_dir": str(Path(job.folder) / "trl"),
        "learning_rate": job.lr,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_steps": job.num_steps,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "adamw_torch_fused",
        "bf16": job.dtype == "bf16",
        "max_length": None,
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": job.device == "cuda",
        **job.peer,
    }
    if job.method == "dpo":
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer, DPOConfig(beta=0.1, **common)
    if job.method == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer, ORPOConfig(beta=0.1, **{**common, "max_length": 8192})
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    simpo = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}
    return CPOTrainer, CPOConfig(**simpo, **{**common, "max_length": 8192})


if __name__ == "__main__":
    measure(Job.read(Path(sys.argv[1]))).write(Path(sys.argv[2]))
