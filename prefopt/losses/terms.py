"""What a method must give, checked where it is called: one that is written wrong ends with a sentence about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefopt.batch import Component, Loss, LossOutput, Responses, Unit
from prefopt.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

HOW = "docs/howto/loss.md says what a method gives"


def terms(loss: Loss, responses: Responses) -> LossOutput:
    """`loss(responses)`, of the right kind and shapes. Looks at shapes alone, so that no device is waited for.

    Raises: RunError naming the method, the component and the rule that it breaks.
    """
    name = _name(loss)
    output: Any = loss(responses)
    if not isinstance(output, LossOutput):
        raise RunError(f"loss={name} gave a {type(output).__name__}, not a LossOutput", HOW)
    if not output.components:
        raise RunError(f"loss={name} gave no component, so that there is nothing to train on", HOW)
    for component in output.components:
        _check_component(name, component, responses)
    num_responses = responses.lengths.shape[0]
    if output.rewards.shape != (num_responses,):
        raise RunError(
            f"loss={name}: rewards have shape {_shape(output.rewards)}, expected ({num_responses},), one per response",
            "rewards are of responses, not of pairs; responses.paired() takes them apart for the log",
        )
    if output.rewards.requires_grad:
        raise RunError(
            f"loss={name}: rewards carry a gradient and are for the log alone",
            "write LossOutput(components, rewards.detach()): the same numbers without their gradient",
        )
    return output


def check_trains(loss: Loss, output: LossOutput, counts: Mapping[Unit, int]) -> None:
    """Refuse a step of which nothing would be learned: no gradient, or no component has anything to be a mean of.

    counts: of the whole step, over all ranks.

    Raises: RunError naming the method, and its units where there are none of them.
    """
    if not any(component.values.requires_grad for component in output.components):
        raise RunError(
            f"loss={_name(loss)}: no component has a gradient, so that nothing would be learned",
            "compute the values from responses.logps, mean_logps or token_logps as they are: a .detach(), an .item() or"
            " torch.no_grad() on the way takes the gradient out",
        )
    if any(counts[component.unit] for component in output.components):
        return
    units = ", ".join(sorted({component.unit.value for component in output.components}))
    raise RunError(
        f"loss={_name(loss)}: the step holds nothing of what its components count ({units}), so that nothing would be"
        " learned",
        f"its `needs` ({', '.join(sorted(loss.needs)) or 'none'}) must ask for it: pairs, ranking, labels",
    )


def _check_component(name: str, component: Component, responses: Responses) -> None:
    known = {
        Unit.PAIR: responses.pairs.shape[0],
        Unit.RESPONSE: responses.lengths.shape[0],
        Unit.EXAMPLE: responses.best.shape[0],
    }
    expected = known.get(component.unit)
    values = component.values
    if values.ndim == 1 and expected in (None, values.shape[0]):
        return
    many = "one dimension" if expected is None else f"({expected},)"
    raise RunError(
        f"loss={name}: component {component.name!r} has shape {_shape(values)}, expected {many}, one value per"
        f" {component.unit.value.replace('_', ' ')}",
        "values are not reduced: the step divides their sum by the count over all micro-batches and ranks",
    )


def _name(loss: Loss) -> str:
    return type(loss).__module__.rpartition(".")[2]


def _shape(values: Tensor) -> str:
    return str(tuple(values.shape))
