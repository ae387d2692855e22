"""Bradley-Terry reward model: a scalar head instead of the LM head."""

from __future__ import annotations

from dataclasses import dataclass

from prefopt.batch import Component, LossOutput, Responses, Unit
from prefopt.losses.numerics import logsigmoid

__all__ = ["RewardBT"]


@dataclass(frozen=True)
class RewardBT:
    """Logistic loss on the difference of two rewards (Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155).

        loss = -log sigmoid( r_w - r_l - m ) + center * (r_w + r_l)^2

    r: the scalar head's output at the response's last token. Mean over pairs, both terms. With equal rewards and no
    margin the first term is ln 2.

    center: weight of a pull of rewards to mean 0, which the first term leaves open (Eisenstein et al. 2023, arXiv
        2312.09244); 0 (off) to 0.1. Default 0, as in TRL, where it is center_rewards_coefficient.
    margin: none: m = 0 (default). column: m is the first number of the data's margins, that of the chosen response
        minus that of the rejected one, in units of reward (Llama 2, Touvron et al. 2023, arXiv 2307.09288: larger where
        the preference is clearer).

    Rewards (for the log): r.
    Deviations: the paper of 2022 weighs all pairs of a prompt together as one element; here each pair counts once.
    """

    center: float = 0.0
    margin: str = "none"

    def __post_init__(self) -> None:
        if not self.center >= 0:
            raise ValueError(f"center must be 0 or more, not {self.center}")
        if self.margin not in ("none", "column"):
            raise ValueError(f"margin must be none or column, not {self.margin!r}")

    @property
    def needs(self) -> frozenset[str]:
        needs = frozenset({"pairs", "rewards"})
        return needs | {"margins"} if self.margin == "column" else needs

    @property
    def num_margins(self) -> int:
        """How many margins each response must have."""
        return 1 if self.margin == "column" else 0

    def __call__(self, responses: Responses) -> LossOutput:
        assert responses.rewards is not None, "needs has rewards"
        chosen, rejected = responses.paired(responses.rewards)
        difference = chosen - rejected
        if self.margin == "column":
            assert responses.margins is not None, "needs has margins"
            higher, lower = responses.paired(responses.margins[:, 0])
            difference = difference - (higher - lower)
        components = [Component("reward_bt", -logsigmoid(difference), Unit.PAIR)]
        if self.center:
            components.append(Component("center", (chosen + rejected).square(), Unit.PAIR, self.center))
        return LossOutput(tuple(components), responses.rewards.detach())
