"""The model that is exported as it was trained, adapters beside their base, and the rows by which a copy is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.batch import Encoded, Outputs
from prefopt.data.tokenizer import load_tokenizer
from prefopt.errors import RunError, UserError
from prefopt.export.source import Source, exactly
from prefopt.losses import loss_class
from prefopt.model.files import adapter_folder, base_of, model_folder
from prefopt.model.finite import check_finite
from prefopt.model.heads import has_head, head_labels
from prefopt.model.load import load_policy, load_reward_policy, longest_row
from prefopt.model.policy import Policy, RewardPolicy
from prefopt.settings import ModelSettings

TEXTS = (
    ("What is the capital of France?", "The capital of France is Paris, a city of two million people."),
    ("Once upon a time there was a little girl who", " liked to play outside. One day she found a red ball."),
    ("def add(a, b):\n", '    """The sum."""\n    return a + b\n'),
    ("Zähle bis drei. 1, 2, ¿y después?", " 3. 你好, мир: 0.5 % & <b>fin</b> 🙂"),
)
"""Prompts and responses of a probe: prose, code, numbers, other scripts. Not their sense matters."""

LONGEST = 48
"""Tokens of a prompt or response that are asked for: enough to pass every layer with every kind of position."""


@dataclass
class Live:
    """policy: in float32, adapters beside their base where there are any. start: the folder of the weights under them,
    or of the model itself. base: what that model is called. has_adapters: whether there are any."""

    policy: Policy
    tokenizer: Any
    start: Path
    base: str
    has_adapters: bool

    def merged(self) -> Policy:
        """One model: the adapters' products added to the weights they belong to, in float32."""
        if not self.has_adapters:
            return self.policy
        model: Any = self.policy.model
        return type(self.policy)(model.merge_and_unload(), self.policy.layout)


def open_live(source: Source) -> Live:
    """Load what is exported, on the CPU in float32.

    Raises: UserError or RunError for what cannot be loaded, or a checkpoint that is damaged.
    """
    return _of_checkpoint(source) if source.is_checkpoint else _of_folder(source)


def _of_folder(source: Source) -> Live:
    adapters = adapter_folder(source.path)
    if adapters is None:
        start = model_folder(source.path)
        load = load_reward_policy if head_labels(start) else load_policy
        policy = load(ModelSettings(path=str(start)), longest=0, adapters=False)
        return Live(policy, load_tokenizer(str(start)), start, source.path, False)
    base = base_of(adapters)
    # The run knows the base's revision on the hub; adapters from elsewhere name the repository alone.
    about = exactly(source.model) if source.run is not None else ModelSettings(path=base)
    start = model_folder(base, about.revision if base == about.path else None)
    is_reward = has_head(adapters)
    load = load_reward_policy if is_reward else load_policy
    plain = load(about, base, longest=0, adapters=False)
    from peft import PeftModel  # seconds of imports that a whole model does not need

    adapted: Any = PeftModel.from_pretrained(plain.pretrained, str(adapters))
    check_finite(adapted, adapters)
    kind = RewardPolicy if is_reward else Policy
    return Live(kind(adapted, plain.layout, has_adapters=True), _tokenizer(adapters, base), start, base, True)


def _of_checkpoint(source: Source) -> Live:
    """The parts of all ranks, put into the model that the run began with; the same for every engine."""
    import torch

    from prefopt.train.checkpoint import damage
    from prefopt.train.engine_plain import trainable
    from prefopt.train.parts import WEIGHT, SavedParts

    assert source.run is not None
    path = Path(source.path)
    if said := damage(path):
        raise RunError(f"checkpoint {path}: {said}", "another step=N")
    about = exactly(source.model)
    loss: Any = loss_class(str(source.run.loss["name"]))
    policy = (load_reward_policy if "rewards" in loss.needs else load_policy)(about, longest=0)
    saved = SavedParts(path)
    weights = trainable(policy)
    saved.check_names(weights)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved.read(name, WEIGHT, 0, weight.numel()).view(weight.shape))
    tokenizer = load_tokenizer(
        about.tokenizer or about.path, None if about.tokenizer else about.revision, source.run.data.chat_template
    )
    start = model_folder(about.path, about.revision)
    return Live(policy, tokenizer, start, about.path, about.lora is not None)


def _tokenizer(adapters: Path, base: str) -> Any:
    """That beside the adapters, which has the template of the training; else the base's."""
    here = (adapters / "tokenizer_config.json").is_file()
    return load_tokenizer(str(adapters) if here else base)


def probe_rows(live: Live) -> list[Encoded]:
    """A few texts as the model's own tokens, no longer than it can read.

    Raises: UserError where the tokenizer makes nothing of any of them.
    """
    limit = longest_row(live.start)
    most = LONGEST if limit is None else max(1, min(LONGEST, limit // 2))
    rows = []
    for number, (prompt, response) in enumerate(TEXTS):
        asked = live.tokenizer.encode(prompt)[:most]
        said = live.tokenizer.encode(response, add_special_tokens=False)[:most]
        if asked and said:
            rows.append(Encoded(f"probe {number}", number, asked, [said], [], 0))
    if not rows:
        raise UserError(f"{live.start}: its tokenizer gives no tokens for plain text", "copy the tokenizer again")
    return rows


def answers(policy: Policy, rows: list[Encoded]) -> Outputs:
    """What the model says of the probe's rows."""
    import torch

    from prefopt.pack import pack

    policy.eval()
    with torch.no_grad():
        return policy(pack(rows, policy.shares_prompts, whole_responses=policy.has_scalar_head))
