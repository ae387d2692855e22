"""Academic benchmarks by lm-evaluation-harness, as it runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace, Measured
from prefopt.evaluate.settings import EvalSettings

__all__ = ["Harness"]


@dataclass(frozen=True)
class Harness:
    """Tasks of lm-evaluation-harness (Gao et al., EleutherAI), which `pip install 'prefopt[harness]'` brings.

    Prompts, few-shot examples, scoring and aggregation are the harness's, by its Python API, with its own seeds; its
    numbers become figures TASK/METRIC (TASK/METRIC/FILTER where a task has filters) with value +- 1.96 of its standard
    errors. Groups such as mmlu have a figure as well as their tasks. Notes give the harness's version, and the version
    and hash of each task: the hash is the harness's own, over documents, prompts and targets that were asked.

    The model is measured as a folder of transformers; adapters are loaded over the base they name. Code that comes with
    a model is not run; data of tasks are fetched by `datasets`, so that without network only what is cached, or what
    lies in files that your own task names, can be measured. Task files of include_path may hold Python (!function),
    which the harness runs: give folders that you trust.

    tasks: names of tasks, groups or tags. Must be given.
    num_fewshot: examples before each question; null: as the task says. A task that says 0 keeps 0 in the harness.
    limit: only so many documents of each task; null: all. Figures of a part are not comparable with published ones.
    include_path: a folder with task files of your own, which go before those of the harness.
    batch_size: requests that the model sees at once. Figures differ by rounding between sizes.
    apply_chat_template: questions as user turns, by the chat template of the model or of the settings; few-shot
        examples as earlier turns. Default: false, as the published tables of base models; a chat model's differ.
    """

    tasks: list[str] = field(default_factory=list)
    num_fewshot: int | None = None
    limit: int | None = None
    include_path: str | None = None
    batch_size: int = 8
    apply_chat_template: bool = False
    uses: ClassVar[frozenset[str]] = frozenset({"model"})
    reads: ClassVar[frozenset[str]] = frozenset({"chat_template", "device", "dtype"})

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must be given, for instance [arc_easy, hellaswag]")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be different ones, not {', '.join(self.tasks)}")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ValueError(f"num_fewshot must be 0 or more, not {self.num_fewshot}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be 1 or more, or null, not {self.limit}")
        if self.include_path == "":
            raise ValueError("include_path must be a folder or null, not empty")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {self.batch_size}")

    @property
    def needs(self) -> frozenset[str]:
        """A model."""
        return frozenset({"model"})

    @property
    def files(self) -> Mapping[str, str]:
        """The folder of tasks."""
        return {} if self.include_path is None else {"measure.include_path": self.include_path}

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError for a chat template that would have no effect."""
        if settings.chat_template is not None and not self.apply_chat_template:
            raise UserError(
                "chat_template has no effect on measure=harness without measure.apply_chat_template",
                "set measure.apply_chat_template=true, or leave chat_template out",
            )

    def __call__(self, place: EvalPlace) -> Measured:
        """Measure.

        Raises: UserError where the harness is not installed, for an unknown task or a folder that is not there;
            RunError where a task's data cannot be had.
        """
        if find_spec("lm_eval") is None:
            raise UserError(
                "measure=harness needs lm-evaluation-harness, which is not installed", "pip install 'prefopt[harness]'"
            )
        folder = None if self.include_path is None else Path(self.include_path).expanduser()
        if folder is not None and not folder.is_dir():
            raise UserError(f"measure.include_path: there is no folder {folder}", f"working directory: {Path.cwd()}")
        from prefopt.evaluate.harness_run import Asked, run_harness

        asked = Asked(self.tasks, self.num_fewshot, self.limit, folder, self.batch_size, self.apply_chat_template)
        return run_harness(asked, place)
