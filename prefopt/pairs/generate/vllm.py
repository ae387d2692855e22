"""Candidates from vLLM in this process: the same sampling as of a server, from the token ids of training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from prefopt.errors import RunError, UserError
from prefopt.pairs.generate.server import EMPTY, check_sampling, sample_seed, with_candidates
from prefopt.pairs.stages import Asked, Generated, LeftOut, Place
from prefopt.records import Candidate, Example

__all__ = ["FromVllm"]

TOO_LONG = "the prompt is longer than max_prompt_tokens"


@dataclass(frozen=True)
class FromVllm:
    """Samples of the policy by vLLM (the extra `vllm`; a GPU): n a prompt, each with a seed of its own.

    The prompts are the token ids that training would give, so that no second template or tokenizer has a say. A seed is
    decided by the prompt's words, the command's seed and the sample's number. vLLM's arithmetic depends a little on
    which requests run together: the same command may, now and then, give another word.

    n: candidates a prompt. temperature, top_p: of the sampling; 0 is greedy, and then n must be 1.
    max_new_tokens: the longest answer, tokens. stop: texts that end an answer.
    memory: share of the device's memory that vLLM takes, 0 to 1. Default 0.9 as in vLLM; a model that scores on the
        same device needs the rest.
    """

    n: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    memory: float = 0.9
    needs_policy: ClassVar[bool] = True
    works_on_responses: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.top_p, self.max_new_tokens, self.stop)
        if not 0 < self.memory <= 1:
            raise ValueError(f"memory must be above 0 and at most 1, not {self.memory}")

    @property
    def answers(self) -> int:
        """To each prompt."""
        return self.n

    def check(self, asked: Asked) -> None:
        """Raises: UserError for several policies; as `check_policies`."""
        from prefopt.pairs.model_checks import check_policies

        _check_one(asked.settings.policies)
        check_policies(asked, self.max_new_tokens)

    def open(self, place: Place) -> Callable[[Sequence[Example]], list[Generated]]:
        """The function that answers prompts.

        Raises: UserError where vLLM is not installed, for several policies, or for adapters; as `load_tokenizer`.
        """
        settings = place.settings
        policy = _check_one(settings.policies)
        _choose_device(place.device)
        try:
            import vllm
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise RunError(f"vllm is installed, and cannot be imported: {error}") from error
            raise UserError("generate=vllm needs vLLM, which is not installed", "pip install 'prefopt[vllm]'") from None
        from prefopt.data.prompts import PromptEncoder
        from prefopt.data.tokenizer import load_tokenizer

        encode = PromptEncoder(load_tokenizer(policy, None, settings.chat_template))
        model = vllm.LLM(
            model=str(Path(policy).expanduser()) if Path(policy).expanduser().exists() else policy,
            dtype=settings.dtype,
            seed=settings.seed,
            max_model_len=settings.max_prompt_tokens + self.max_new_tokens,
            gpu_memory_utilization=self.memory,
            enable_prefix_caching=True,
            trust_remote_code=False,
        )

        def sampling(example: Example, number: int) -> Any:
            return vllm.SamplingParams(
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_new_tokens,
                stop=self.stop or None,
                seed=sample_seed(settings.seed, example, number),
            )

        def generate(examples: Sequence[Example]) -> list[Generated]:
            ids = [encode(example) for example in examples]
            fits = [place for place, tokens in enumerate(ids) if len(tokens) <= settings.max_prompt_tokens]
            jobs = [(place, number) for place in fits for number in range(self.n)]
            answers = model.generate(
                [{"prompt_token_ids": ids[place]} for place, _ in jobs],
                [sampling(examples[place], number) for place, number in jobs],
                use_tqdm=False,
            )
            outputs = {job: answer.outputs[0] for job, answer in zip(jobs, answers)}
            return [
                self._generated(
                    settings.seed,
                    policy,
                    example,
                    len(ids[place]),
                    [outputs[place, number] for number in range(self.n) if (place, number) in outputs],
                )
                for place, example in enumerate(examples)
            ]

        return generate

    def _generated(self, seed: int, policy: str, example: Example, length: int, outputs: Sequence[Any]) -> Generated:
        """outputs: vLLM's, in the order of the samples; none where the prompt was too long."""
        if not outputs:
            return Generated((), (LeftOut(example.id, TOO_LONG, f"{length} tokens"),))
        candidates = []
        left_out = []
        for number, output in enumerate(outputs):
            own = sample_seed(seed, example, number)
            source = {"model": policy, "seed": own, "finish": output.finish_reason}
            if output.text.strip():
                candidates.append(Candidate(output.text, source=source))
            else:
                left_out.append(LeftOut(example.id, EMPTY, f"seed {own}, finish {output.finish_reason}", output.text))
        return with_candidates(example, candidates, left_out)


def _check_one(policies: Sequence[str]) -> str:
    """The one policy. Raises: UserError for several, or for adapters."""
    if len(policies) != 1:
        raise UserError(f"generate=vllm takes one policy, not {len(policies)}", "or take generate=sample")
    (policy,) = policies
    if (Path(policy).expanduser() / "adapter_config.json").exists():
        raise UserError(f"{policy}: generate=vllm takes whole models, not adapters", "or take generate=sample")
    return policy


def _choose_device(device: str) -> None:
    """vLLM takes the first device that this process sees; of several processes each has another one."""
    if ":" in device:
        number = int(device.split(":")[1])
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number] if seen else str(number)
