"""A language model as the rest of the house sees it: a batch in, log-probabilities of its tokens (or rewards) out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefopt.batch import Batch, Outputs
from prefopt.model import attention
from prefopt.model.heads import HEAD
from prefopt.model.logps import Agree, States, alone, chosen_logps, token_values
from prefopt.needs import LIVE

if TYPE_CHECKING:
    from peft import PeftModel

LAYOUTS = ("shared", "packed", "padded")


class Policy(nn.Module):
    """Backbone and head called inside one forward, so that DDP and ZeRO-3 see one module.

    layout: shared: packed, the prompt once for all its responses. packed: the prompt repeated for each response.
        padded: one padded row per response, for models whose attention cannot be told where rows end.
    kernel: what computes the attention of a packed layout: "segments" or "flex", see `SharedLayout`.
    has_adapters: `model` is a peft model around the transformers model.
    agree: how ranks settle on the number of calls of the head; the engine's, where it shards weights.
    """

    has_scalar_head = False

    def __init__(self, model: PreTrainedModel | PeftModel, layout: str = "shared", has_adapters: bool = False) -> None:
        super().__init__()
        self.model = model
        self.has_adapters = has_adapters
        self.layout = layout
        self.kernel = "segments"
        self.agree: Agree = alone
        self._own_attention = attention.default_attention(self.pretrained)
        self.use_layout(layout)

    def use_layout(self, layout: str) -> None:
        """Change how batches are laid out, and the attention with it."""
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {LAYOUTS}, not {layout!r}")
        self.layout = layout
        self.pretrained.set_attn_implementation(self._own_attention if layout == "padded" else attention.NAME)

    @property
    def pretrained(self) -> PreTrainedModel:
        """The transformers model itself, adapters injected where there are any."""
        model: Any = self.model
        return model.get_base_model() if self.has_adapters else model

    @property
    def shares_prompts(self) -> bool:
        """Whether batches for this policy carry each prompt once."""
        return self.layout == "shared"

    def forward(self, batch: Batch, asks: frozenset[str] = frozenset(), reference: Policy | None = None) -> Outputs:
        """Log-probabilities of the response tokens and of the listed prompt tokens, float32 or better.

        asks: what else is wanted of each response token, from `logps.ASKS`. reference: the live reference for it; None
        takes this policy with its adapters off.
        """
        hidden = self._hidden(batch)
        of_reference = self._reference_states(batch, reference) if asks & LIVE else None
        states = States(hidden[batch.predictor], self._logits)
        found = token_values(states, batch.target, self.vocabulary, asks, of_reference, self.agree)
        prompt_logps = found["logps"].new_zeros(0)
        if self.agree(batch.prompt_target.shape[0]):
            prompt_states = States(hidden[batch.prompt_predictor], self._logits)
            prompt_logps = chosen_logps(prompt_states, batch.prompt_target, self.vocabulary, self.agree)
        return Outputs(found.pop("logps"), prompt_logps, **found)

    def states(self, batch: Batch) -> Tensor:
        """Hidden states of the last layer at every place on the axis: [T, H], in the model's dtype."""
        return self._hidden(batch)

    def _hidden(self, batch: Batch) -> Tensor:
        """Hidden states of every place on the axis: [T, H]."""
        return self._padded(batch) if self.layout == "padded" else self._packed(batch)

    def _reference_states(self, batch: Batch, reference: Policy | None) -> States:
        """The live reference's hidden states at the predicting places, and its head."""
        if reference is not None:
            with torch.no_grad():
                return States(reference._hidden(batch)[batch.predictor], reference._logits)
        if not self.has_adapters:
            raise ValueError("a policy without adapters needs a reference of its own")
        with torch.no_grad(), self.reference():
            hidden = self._hidden(batch)[batch.predictor]

        def head(states: Tensor) -> Tensor:
            with self.reference():
                return self._logits(states)

        return States(hidden, head)

    def _packed(self, batch: Batch) -> Tensor:
        """Hidden states of every place on the axis: [T, H]."""
        output = self.pretrained.base_model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None],
            shared_layout=attention.SharedLayout(batch.segments, self.kernel),
            use_cache=False,
        )
        return output.last_hidden_state[0]

    def _padded(self, batch: Batch) -> Tensor:
        """The same from one padded row per response: [T, H]. The batch must repeat its prompts."""
        if any(len(s.responses) != 1 for s in batch.segments):
            raise ValueError("a padded policy needs a batch packed with share_prompts=False")
        spans = [
            (s.prompt.start, r.stop if r.stop > r.start else s.prompt.stop) for s in batch.segments for r in s.responses
        ]
        longest = max(stop - start for start, stop in spans)
        places = torch.zeros(len(spans), longest, dtype=torch.int64)
        real = torch.zeros(len(spans), longest, dtype=torch.bool)
        for number, (start, stop) in enumerate(spans):
            places[number, : stop - start] = torch.arange(start, stop)
            real[number, : stop - start] = True
        places, real = places.to(batch.input_ids.device), real.to(batch.input_ids.device)
        output = self.pretrained.base_model(
            input_ids=batch.input_ids[places], attention_mask=real.long(), use_cache=False
        )
        return output.last_hidden_state[real]

    def _logits(self, hidden: Tensor) -> Tensor:
        """LM head, with the scaling or soft-capping that the family's own forward applies."""
        logits = self.pretrained.get_output_embeddings()(hidden)
        config = self.pretrained.config.get_text_config()
        for name, transform in LOGIT_TRANSFORMS.items():
            value = config.to_dict().get(name)
            if value is not None:
                logits = transform(logits, value)
        return logits

    @property
    def vocabulary(self) -> int:
        """Columns of the LM head."""
        return self.pretrained.config.get_text_config().vocab_size

    @contextmanager
    def generating(self) -> Iterator[PreTrainedModel | PeftModel]:
        """The model with its own attention, in eval mode, for `generate`."""
        was_training = self.training
        self.pretrained.set_attn_implementation(self._own_attention)
        self.eval()
        try:
            yield self.model
        finally:
            self.use_layout(self.layout)
            self.train(was_training)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Adapters off: the model that a LoRA run started from. Without adapters: the model as it is."""
        if self.has_adapters:
            model: Any = self.model
            with model.disable_adapter():
                yield
        else:
            yield


class RewardPolicy(Policy):
    """A backbone with a scalar head (transformers' sequence classification with one label): a reward per response.

    The reward is read at the response's last token, so that a batch for it is packed with `whole_responses`.
    """

    has_scalar_head = True

    def forward(self, batch: Batch, asks: frozenset[str] = frozenset(), reference: Policy | None = None) -> Outputs:
        """rewards [R] float32; there is no LM head and no log-probability."""
        rewards = self._labels(batch).squeeze(-1)
        return Outputs(rewards.new_zeros(0), rewards.new_zeros(0), rewards)

    def _labels(self, batch: Batch) -> Tensor:
        """What the head gives for every label at each response's last token: [R, labels], float32 or better."""
        if batch.last is None:
            raise ValueError("a scalar head needs a batch packed with whole_responses=True")
        head: Any = self.pretrained.get_submodule(HEAD)
        values = head(self._hidden(batch)[batch.last])
        return values.to(torch.promote_types(values.dtype, torch.float32))


class RewardHeadsPolicy(RewardPolicy):
    """The same with several labels, one per objective: for asking alone, as no loss takes more than one reward."""

    def forward(self, batch: Batch, asks: frozenset[str] = frozenset(), reference: Policy | None = None) -> Outputs:
        """rewards [R, labels] float32."""
        rewards = self._labels(batch)
        return Outputs(rewards.new_zeros(0), rewards.new_zeros(0), rewards)


LOGIT_TRANSFORMS: dict[str, Any] = {
    "final_logit_softcapping": lambda logits, cap: torch.tanh(logits / cap) * cap,  # Gemma 2, Gemma 3
    "logit_scale": lambda logits, scale: logits * scale,  # Cohere
    "logits_scaling": lambda logits, scale: logits / scale,  # Granite
}
"""What families do to logits after the head, by the configuration key that holds the number."""
