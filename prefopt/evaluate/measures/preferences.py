"""Held-out preferences: what a model makes of the chosen and the rejected responses of named sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from prefopt.errors import UserError
from prefopt.evaluate.measure import EVERY_SETTING, EvalPlace, Measured
from prefopt.evaluate.set_settings import read_sets
from prefopt.evaluate.settings import EvalSettings
from prefopt.fill import SettingsError, from_mapping
from prefopt.losses import loss_class, make_loss

__all__ = ["Preferences"]

_PAIRS = (None, "best_vs_worst", "all", "adjacent", "random")


@dataclass(frozen=True)
class Preferences:
    """The metrics of training's evaluation, and more of them, on any sets and of any model, each with its interval.

    Of a language model, with log p a sum over a response's tokens, EOS included, in nats:

        logps/chosen, logps/rejected            mean of log p
        mean_logps/chosen, mean_logps/rejected  mean of log p / tokens
        logps/accuracy, mean_logps/accuracy     share of pairs whose chosen response has more of it
        nll, perplexity                         -(sum of log p) / (sum of tokens) of the chosen; its exponential
        length/chosen, length/rejected          tokens
        logratio/chosen, logratio/rejected      mean of log p - log p_reference: of the given responses, which are no
                                                samples of the policy, so that it estimates no KL divergence
        logratio_per_token/...                  (sum of it) / (sum of tokens)

    With `kl`, of whole distributions, the model and its reference side by side:

        kl/chosen, kl/rejected                  mean of sum_t KL(policy(. | x, y_<t) || reference(. | x, y_<t)), nats
        kl_per_token/...                        (sum of it) / (sum of tokens)

    Along given responses that is how far the model has moved at what it reads (Zeng et al. 2024, arXiv 2404.11999, call
    it the sequential KL). Its mean over answers that the model itself sampled at temperature 1, none of them selected,
    is an unbiased estimate of KL(policy || reference); rows.jsonl has it by response.

    With a method, loss and rewards as it defines them: loss, loss/TERM, rewards/chosen, rewards/rejected,
    rewards/margin, rewards/accuracy. The mean of a term is over its own units, as in training. Of a reward model
    rewards are what its head gives. A tie counts half wherever a share is called accuracy (in training it counts 0).

    With categories, rewards/accuracy/CATEGORY, and rewards/accuracy/categories: the mean over categories (RewardBench,
    Lambert et al. 2024, arXiv 2403.13787); where there are no rewards, of logps/accuracy.

    Intervals: 95 % of a percentile bootstrap over prompts. Rows of equal prompts are drawn together; numerators and
    denominators of ratios too.

    sets: NAME to a file, or to {path, format, split, config, limit, category}: category is a column. None: the
        evaluation sets of the run.
    loss: the method, {name: dpo, beta: 0.1}, for loss and rewards. None: that of the run; none for model=.
    pairs: how responses with scores pair, as data.pairs. None: as in the run, else best_vs_worst.
    max_length: tokens of prompt and response; longer rows are treated as the run treats them, else left out. None: as
        in the run, else what the model has positions for.
    kl: whether the model's distributions are compared with the reference's; both are loaded at once.
    chunk_size: rows that are scored and kept at once; what is kept is not scored again after a kill.
    """

    sets: dict[str, Any] = field(default_factory=dict, metadata={"example": "{heldout: FILE}"})
    loss: dict[str, Any] | None = None
    pairs: str | None = None
    max_length: int | None = None
    kl: bool = False
    chunk_size: int = 256
    uses: ClassVar[frozenset[str]] = frozenset({"model", "reference"})
    units: ClassVar[Mapping[str, str]] = {
        "accuracy": "share",
        "nll": "nats per token",
        "mean_logps": "nats per token",
        "logratio_per_token": "nats per token",
        "logps": "nats",
        "logratio": "nats",
        "kl_per_token": "nats per token",
        "kl": "nats",
        "length": "tokens",
    }
    reads: ClassVar[frozenset[str]] = EVERY_SETTING

    def __post_init__(self) -> None:
        read_sets(self.sets, "measure.sets")
        if self.pairs not in _PAIRS:
            raise ValueError(f"pairs must be one of {', '.join(map(str, _PAIRS[1:]))}, or null, not {self.pairs!r}")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length must be 2 or more, or null, not {self.max_length}")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be 1 or more, not {self.chunk_size}")
        if self.loss is not None:
            object.__setattr__(self, "loss", _whole(self.loss))  # so that beta=1 and beta=1.0 are the same

    @property
    def needs(self) -> frozenset[str]:
        """A model, and the reference where the method, or `kl`, compares with one."""
        compares = self.loss is not None and "reference" in make_loss(self.loss).needs
        return frozenset({"model", "reference"}) if compares or self.kl else frozenset({"model"})

    @property
    def files(self) -> Mapping[str, str]:
        """The files of the sets."""
        return {name: one.path for name, one in read_sets(self.sets, "measure.sets").items()}

    def check(self, settings: EvalSettings) -> None:
        """Raises: UserError where there is nothing to measure on."""
        if not self.sets and not settings.run:
            raise UserError(
                "measure.sets: there is no set to measure on",
                "measure.sets={heldout: FILE}; a run has its own evaluation sets",
            )

    def work(self, place: EvalPlace, number: int, of: int) -> None:
        """Score every `of`-th chunk from `number` on. Raises: UserError or RunError, as `__call__`."""
        from prefopt.evaluate.preference_work import Work

        Work(self, place).score(number, of)

    def __call__(self, place: EvalPlace) -> Measured:
        """Score what is not scored yet, and make figures of it.

        Raises: UserError for models, sets and methods that do not go together; RunError for numbers that are not
            finite.
        """
        from prefopt.evaluate.preference_work import Work

        work = Work(self, place)
        work.score(0, 1)
        return work.measured()


def _whole(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method, every one there and of its type. Raises: UserError naming what is wrong with them."""
    if not settings.get("name"):
        raise SettingsError("measure.loss", "it names no method", "for instance measure.loss={name: dpo, beta: 0.1}")
    name, given = str(settings["name"]), {key: value for key, value in settings.items() if key != "name"}
    try:
        made: Any = from_mapping(loss_class(name), given, "measure.loss")
    except ValueError as error:
        raise SettingsError("measure.loss", f"{name}: {error}") from None
    return {"name": name, **asdict(made)}
