"""How long a row may be, read from config.json alone: the same as what transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefopt.errors import UserError
from prefopt.model.positions import check_longest, limits_in, limits_of, positions


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 512}, (512, None, None)),
        ({"n_positions": 1024}, (1024, None, None)),
        ({"vocab_size": 7}, (None, None, None)),
        ({"max_position_embeddings": True}, (None, None, None)),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "linear", "factor": 2.0}}, (512, None, "linear")),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, (512, 512, "dynamic")),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64},
            },
            (512, 64, "longrope"),
        ),
        (
            {
                "max_position_embeddings": 512,
                "original_max_position_embeddings": 64,
                "rope_scaling": {"type": "su", "short_factor": [1.0]},
            },
            (512, 64, "su"),
        ),
    ],
)
def test_limits_are_positions_and_where_scaling_by_the_longest_row_begins(
    config: dict[str, object], expected: tuple[object, ...]
) -> None:
    assert tuple(limits_of(config)) == expected


def test_a_model_inside_another_is_asked_first(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"max_position_embeddings": 9, "text_config": {"max_position_embeddings": 512}}))
    assert positions(tmp_path) == 512
    file.write_text(json.dumps({"max_position_embeddings": 9, "text_config": {}}))
    assert positions(tmp_path) == 9


def test_a_row_may_be_as_long_as_the_least_limit_and_no_longer() -> None:
    limits = limits_of({"max_position_embeddings": 512, "rope_scaling": {"type": "dynamic"}})
    scaled = limits._replace(before_scaling=64)
    check_longest(limits, 512, "m")
    check_longest(scaled, 64, "m")
    check_longest(limits_of({}), 10**9, "m")
    with pytest.raises(
        UserError, match=r"^model\.path: m has 512 positions, but the longest row has 957 tokens"
    ) as hit:
        check_longest(limits, 957, "m")
    assert hit.value.hint == "set data.max_length=512 or less"
    with pytest.raises(UserError, match=r"^model\.reference: m scales its rotary embedding .*\(dynamic\)") as hit:
        check_longest(scaled, 65, "m", "model.reference")
    assert hit.value.hint == "set data.max_length=64"
    with pytest.raises(UserError) as hit:
        check_longest(scaled, 957, "m")
    assert hit.value.hint == "set data.max_length=64 or less"  # what is advised is not refused again


@pytest.mark.parametrize("kind", ["llama", "gpt2", "dynamic", "longrope"])
def test_what_config_json_says_is_what_transformers_makes_of_it(kind: str, tmp_path: Path) -> None:
    from transformers import GPT2Config, LlamaConfig, Phi3Config

    from prefopt.model.load import longest_row

    factors = [1.0] * 4
    made = {
        "llama": lambda: LlamaConfig(max_position_embeddings=300),
        "gpt2": lambda: GPT2Config(n_positions=128),
        "dynamic": lambda: LlamaConfig(
            max_position_embeddings=300, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
        ),
        "longrope": lambda: Phi3Config(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=300,
            original_max_position_embeddings=60,
            pad_token_id=0,
            rope_scaling={"type": "longrope", "short_factor": factors, "long_factor": factors},
        ),
    }[kind]()
    made.save_pretrained(tmp_path)
    assert positions(tmp_path) == longest_row(tmp_path) == {"gpt2": 128, "longrope": 60}.get(kind, 300)
    assert limits_in(tmp_path).before_scaling == {"dynamic": 300, "longrope": 60}.get(kind)
