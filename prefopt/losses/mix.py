"""A weighted sum of methods over the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from prefopt.batch import CoupledLoss, HasNotes, Loss, LossOutput, Responses, WeighsMargins, WholeStep
from prefopt.errors import UserError
from prefopt.fill import SettingsError, from_mapping
from prefopt.losses import loss_class, make_loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mix"]


@dataclass(frozen=True)
class _Head:
    """What a part has besides the settings of its method."""

    name: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must be that of a method")
        if self.name == "mix":
            raise ValueError("a mix inside a mix: list its parts beside the others")
        if not self.weight > 0:
            raise ValueError(f"weight must be above 0, not {self.weight}; leave the part out")


def _iterative_rpo() -> list[dict[str, Any]]:
    return [
        {"name": "dpo", "weight": 1.0, "beta": 0.1},
        {"name": "sft", "weight": 1.0, "reduction": "sequence_mean"},
    ]


@dataclass(frozen=True)
class Mix:
    """A weighted sum of methods over the same rows; the default is DPO plus the NLL of the chosen response.

        loss = sum over parts of weight * loss of the part

    Each term of a part keeps its own unit (tokens, pairs, responses, ...) and is a mean over the whole optimiser step.

    parts: two or more, each with the name of a method, its weight (above 0; 1 where it is left out) and the method's
        own settings, which have the method's own defaults:

            parts: [{name: dpo, weight: 1.0, beta: 0.1}, {name: sft, weight: 0.2}]

        Default: the objective of iterative RPO (Pang et al. 2024, arXiv 2404.19733): DPO with beta 0.1 and, with weight
        1, the NLL per token of the chosen response.

    The mix needs whatever its parts need. In the log a term has its own name, with the part's in front where two parts
    use the same. Refused: a scalar head together with log-probabilities (one model has one head), the rankers
    rank_pointwise and rank_pairwise (their rows end in a verdict), a y_ref target beside a method that would take it
    for one more response, and imitation of labelled single responses by a method that reads no labels.

    Rewards (for the log): those of the first part.
    Deviations: none; TRL's loss_type lists and InternVL's MPO (Wang et al. 2024, arXiv 2411.10442) are sums like this.
    """

    parts: list[dict[str, Any]] = field(default_factory=_iterative_rpo)

    def __post_init__(self) -> None:
        parts = [_complete(part, f"loss.parts.{place}") for place, part in enumerate(self.parts)]
        object.__setattr__(self, "parts", parts)
        if len(parts) < 2:
            raise ValueError(f"parts must hold two methods or more, not {len(parts)}; one alone is loss=NAME")
        _ = self.num_margins  # the parts must agree
        _refuse_what_cannot_be_mixed([(p["name"], loss.needs) for p, loss in zip(parts, self._losses, strict=True)])

    @cached_property
    def _losses(self) -> tuple[Loss, ...]:
        return tuple(make_loss({k: v for k, v in part.items() if k != "weight"}) for part in self.parts)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(loss.needs for loss in self._losses))

    @property
    def num_margins(self) -> int:
        """How many margins each response must have: what its parts agree on, 0 where none uses any.

        Raises: ValueError where they do not agree.
        """
        wanted = {loss.num_margins for loss in self._losses if isinstance(loss, WeighsMargins) and loss.num_margins}
        if len(wanted) > 1:
            raise ValueError(
                f"parts ask for {' and '.join(map(str, sorted(wanted)))} margins; rows have one number of them"
            )
        return next(iter(wanted), 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the parts say of their settings."""
        return tuple(note for loss in self._losses if isinstance(loss, HasNotes) for note in loss.notes)

    def __call__(self, responses: Responses) -> LossOutput:
        outputs = [loss(view) for loss, view in zip(self._losses, self._views(responses), strict=True)]
        shared = Counter(c.name for output in outputs for c in output.components)
        components = [
            c._replace(
                name=f"{label}/{c.name}" if shared[c.name] > 1 else c.name,
                weight=part["weight"] * c.weight,
            )
            for part, label, output in zip(self.parts, self._labels, outputs, strict=True)
            for c in output.components
        ]
        return LossOutput(tuple(components), outputs[0].rewards)

    @property
    def _labels(self) -> list[str]:
        """What each part is called in the log: its method, numbered where the mix has it more than once."""
        count = Counter(part["name"] for part in self.parts)
        names = [part["name"] for part in self.parts]
        return [n if count[n] == 1 else f"{n}_{names[:place].count(n) + 1}" for place, n in enumerate(names)]

    def observe(self, responses: Responses) -> Tensor:
        """[K, m] the columns of all coupled parts side by side.

        Raises: UserError where they observe different things, for instance one pairs and one responses.
        """
        import torch

        observed = {
            label: loss.observe(responses)
            for label, loss in zip(self._labels, self._losses, strict=True)
            if _is_coupled(loss)
        }
        if len({len(values) for values in observed.values()}) > 1:
            raise UserError(
                f"loss=mix: {' and '.join(observed)} look at different things of the step (pairs and single responses)",
                "keep one of them",
            )
        return torch.cat(list(observed.values()), 1)

    def _views(self, responses: Responses) -> list[Responses]:
        """The responses as each part sees them: of the whole step its own columns."""
        views, start = [], 0
        for loss in self._losses:
            view = responses
            if _is_coupled(loss):
                whole, width = responses.whole_step, loss.observe(responses).shape[1]
                assert whole is not None, "needs has step"
                view = replace(responses, whole_step=WholeStep(whole.values[:, start : start + width], whole.own))
                start += width
            views.append(view)
        return views


def _is_coupled(loss: Loss) -> TypeGuard[CoupledLoss]:
    """Whether a method looks at the whole step."""
    return "step" in loss.needs


def _complete(part: Any, where: str) -> dict[str, Any]:
    """A part with its weight and every setting of its method written down, each of its type."""
    if not isinstance(part, Mapping):
        raise SettingsError(where, f"expected the name, weight and settings of a method, got {part!r}")
    own = {key: value for key, value in part.items() if key in ("name", "weight")}
    settings = {key: value for key, value in part.items() if key not in own}
    try:
        head = from_mapping(_Head, own, where)
        method: Any = from_mapping(loss_class(head.name), settings, where)
    except ValueError as error:
        raise SettingsError(where, str(error)) from None
    return {"name": head.name, "weight": head.weight, **asdict(method)}


def _refuse_what_cannot_be_mixed(parts: list[tuple[str, frozenset[str]]]) -> None:
    """parts: name and needs of each."""
    heads = {"rewards" in needs: name for name, needs in parts}
    if len(heads) > 1:
        raise ValueError(f"{heads[True]} trains a scalar head and {heads[False]} the LM head; a model has one of them")
    with_target = [name for name, needs in parts if "targets" in needs]
    for name, needs in parts:
        if needs & {"verdicts", "comparisons"}:
            raise ValueError(f"{name} predicts a verdict and nothing of the response; it cannot be mixed")
        if with_target and "targets" not in needs and needs & {"ranking", "labels", "step"}:
            raise ValueError(f"{with_target[0]} adds the target y_ref, which {name} would take for one more response")
    everything = frozenset[str]().union(*(needs for _, needs in parts))
    if "labels" in everything and not everything & {"pairs", "ranking"}:
        for name in (name for name, needs in parts if "labels" not in needs):
            raise ValueError(f"{name} would imitate undesirable responses too, as it reads no labels; take loss=ulma")
