"""States, traffic, operations and links by hand: a model of a million weights and a known number of ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.optimiser_bytes import optimiser_bytes
from prefopt.plan import sharding
from prefopt.plan.activations import Precision
from prefopt.plan.machines import DEVICES, GIGA, LINK_SHARE, find_device, find_network
from prefopt.plan.operations import Amount, operations_of
from prefopt.plan.shape import Shape, shape_of
from prefopt.plan.sharding import Sharding, States, forward_traffic, states_of, traffic_of
from prefopt.settings import LoraSettings, ModelSettings, RunSettings
from prefopt.train import bfloat16

MILLION = 10**6
LOW, FULL = Precision(2, 2, False), Precision(4, 4, False)
PATHS = ("model.path=m", "data.train=[{path: f.jsonl}]", "loss=simpo")


def model(base: int = MILLION, adapters: int = 0) -> Shape:
    """A model of 4 layers that is one matrix, as far as states are concerned."""
    trained = adapters or base
    return Shape(
        source="a test",
        family="llama",
        hidden=100,
        inner=400,
        layers=4,
        heads=10,
        key_heads=5,
        head_size=10,
        vocabulary=1000,
        is_gated=True,
        num_norms=2,
        total=base + adapters,
        trainable=trained,
        in_layers=800_000,
        adapters=adapters,
        widest=100_000,
        layer=200_000,
        trainable_shapes=((1000, trained // 1000),),
        adapted=(("q_proj", 100, 100),) if adapters else (),
        rank=8 if adapters else 0,
        normalises_heads=False,
        has_scalar_head=False,
    )


def run(*overrides: str) -> RunSettings:
    return compose([*PATHS, *overrides])


def states(precision: Precision, how: Sharding, *overrides: str, shape: Shape | None = None) -> States:
    return states_of(shape or model(), precision, how, run(*overrides), is_cpu=True)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "masters", "optimiser"),
    [
        (0, 2, 2, 4, 8),
        (1, 2, 2, 1, 2),
        (2, 2, 0.5, 1, 2),
        (3, 0.5, 0.5, 1, 2),
    ],
)
def test_bfloat16_states_of_each_zero_stage_on_four_ranks(
    stage: int, weights: float, gradients: float, masters: float, optimiser: float
) -> None:
    """2 + 2 + 12 bytes for a weight, divided as the ZeRO paper says (arXiv 1910.02054, figure 1)."""
    found = states(LOW, Sharding("zero", 4, stage), "model.dtype=bfloat16", f"deepspeed=zero{max(1, stage)}")
    in_millions = [b / MILLION for b in (found.weights, found.gradients, found.masters, found.optimiser)]
    assert in_millions == [weights, gradients, masters, optimiser]
    assert found.saved == 14 * MILLION


def test_float32_needs_masters_under_zero_1_and_2_only() -> None:
    masters = [states(FULL, Sharding("zero", 2, stage)).masters for stage in (0, 1, 2, 3)]
    assert masters == [0, 2 * MILLION, 2 * MILLION, 0]
    assert states(FULL, Sharding("ddp", 2)).masters == 0
    assert states(LOW, Sharding("ddp", 2), "model.dtype=bfloat16").masters == 4 * MILLION
    stochastic = ("model.dtype=bfloat16", "optim.bfloat16_weights=stochastic")
    assert states(LOW, Sharding("ddp", 2), *stochastic).masters == 0


def test_fsdp_holds_float32_shards() -> None:
    found = states(LOW, Sharding("fsdp", 4, 3), "model.dtype=bfloat16")
    assert (found.weights, found.gradients, found.masters, found.optimiser) == (MILLION, MILLION, 0, 2 * MILLION)


def test_adapters_alone_have_states() -> None:
    shape = model(adapters=10_000)
    found = states(Precision(2, 4, False), Sharding("ddp", 2), "model.dtype=bfloat16", "model.lora={r: 8}", shape=shape)
    assert found.weights == 2 * MILLION + 4 * 10_000
    assert (found.gradients, found.masters, found.optimiser) == (40_000, 0, 80_000)


def test_a_base_of_few_bits() -> None:
    shape = model(adapters=10_000)
    settings = run("model.dtype=bfloat16")
    for base, size in (("nf4", 4.127 / 8), ("int8", 1.0)):
        held = replace(settings, model=replace(settings.model, lora=LoraSettings(r=8, base=base)))
        found = states_of(shape, Precision(2, 4, False), Sharding("one", 1), held, is_cpu=False)
        assert found.weights == pytest.approx(200_000 * 2 + 800_000 * size + 40_000)


def test_offload_moves_states_to_the_host() -> None:
    found = states(LOW, Sharding("zero", 4, 3, host_states=True, host_weights=True), "model.dtype=bfloat16")
    assert (found.weights, found.masters, found.optimiser, found.host) == (0, 0, 0, 3_500_000)


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [("adamw", 8_000_000), ("rmsprop", 4_000_000), ("adafactor", 4 * 2000), ("adamw_8bit", 2_031_250)],
)
def test_states_of_each_optimiser(name: str, num_bytes: int) -> None:
    assert optimiser_bytes(model().trainable_shapes, name) == num_bytes


def test_the_recipes_engines_are_read() -> None:
    assert sharding.sharding_of(run(), 1).name == "one process"
    assert sharding.sharding_of(run(), 2).name == "DDP"
    found = [sharding.sharding_of(run(f"deepspeed=zero{stage}"), 8) for stage in (1, 2, 3)]
    assert [(f.name, f.overlaps, f.bucket) for f in found] == [
        ("ZeRO-1", False, 500_000_000),
        ("ZeRO-2", False, 500_000_000),
        ("ZeRO-3", True, 500_000_000),
    ]
    offload = "+deepspeed.config.zero_optimization.offload_optimizer={device: cpu}"
    assert sharding.sharding_of(run("deepspeed=zero2", offload), 8).name == "ZeRO-2 with states on the host"


def test_precision_of_the_recipe() -> None:
    def of(*overrides: str) -> Precision:
        return sharding.precision_of(run(*overrides))

    assert of() == Precision(4, 4, False)
    assert of("model.dtype=bfloat16") == Precision(2, 4, False)
    assert of("train.autocast=bf16") == Precision(4, 4, True)
    assert of("train.autocast=bf16", "deepspeed=zero2") == Precision(2, 2, False)


@pytest.mark.parametrize(
    ("how", "micro_batches", "gradients", "weights"),
    [
        (Sharding("one", 1), 3, 0, 0),
        (Sharding("ddp", 4), 3, 3, 0),  # 2 bytes, (N - 1) / N, twice; once a step
        (Sharding("zero", 4, 1), 3, 1.5, 1.5),
        (Sharding("zero", 4, 2), 3, 4.5, 1.5),
        (Sharding("zero", 4, 3), 3, 4.5, 9),
        (Sharding("zero", 4, 3), 1, 1.5, 3),
        (Sharding("fsdp", 4, 3, gathers_once=True), 1, 3, 1.5),
    ],
)
def test_what_a_rank_sends(how: Sharding, micro_batches: int, gradients: float, weights: float) -> None:
    found = traffic_of(model(), LOW, how, micro_batches)
    assert (found.gradients, found.weights) == (gradients * MILLION, weights * MILLION)
    assert found.total == (gradients + weights) * MILLION


def test_adapters_alone_are_exchanged_but_all_weights_are_gathered() -> None:
    shape, precision = model(adapters=10_000), Precision(2, 4, False)
    assert traffic_of(shape, precision, Sharding("ddp", 2), 1).total == 40_000
    found = traffic_of(shape, precision, Sharding("zero", 2, 3), 1)
    assert (found.gradients, found.weights) == (20_000, 2_040_000)
    assert forward_traffic(shape, precision, Sharding("zero", 2, 3)) == 1_020_000
    assert forward_traffic(shape, precision, Sharding("zero", 2, 2)) == 0


def test_the_update_works_on_as_many_weights_at_once_as_the_trainer() -> None:
    assert sharding.UPDATED_AT_ONCE == bfloat16.AT_ONCE


def test_operations_by_hand() -> None:
    amount = Amount(rows=1, tokens=10, entries=55, predicted=4, responses=2, units=1)
    layers, head, attention = 2 * 800_000 * 10, 2 * 100 * 1000 * 4, 4 * 100 * 4 * 55
    full = operations_of(model(), amount, None, False)
    assert (full.forward, full.again) == (layers + head + attention, 0)
    assert full.backward == 2 * (layers + head) + 2.5 * attention
    again = operations_of(model(), amount, 2, True)
    assert again.again == (layers + attention) / 2 + head
    adapters = operations_of(model(adapters=10_000), amount, None, False)
    assert adapters.backward == layers + head + 2 * (2 * 10_000 * 10) + 2.5 * attention


def test_links() -> None:
    h100 = find_device("h100")
    assert find_network(None, h100, 1, 8).rate == LINK_SHARE * 450 * GIGA
    assert find_network("pcie-5", h100, 1, 8).rate == LINK_SHARE * 64 * GIGA
    assert find_network(None, h100, 4, 8).rate == LINK_SHARE * 400 * GIGA  # eight cards of a node together
    assert find_network("ethernet-100", h100, 4, 8).rate == LINK_SHARE * 12.5 * GIGA
    assert find_network("pcie-4,infiniband-200", h100, 2, 8).rate == LINK_SHARE * 32 * GIGA
    assert find_network(None, h100, 1, 1).rate == float("inf")


@pytest.mark.parametrize(
    ("named", "device", "nodes", "said"),
    [
        ("infiniband400", "h100", 2, "did you mean 'infiniband-400'"),
        ("ethernet-100", "h100", 1, "has no effect"),
        ("nvlink", "l40s", 1, "has none"),
        ("pcie-4,pcie-5", "l40s", 1, "two links of a kind"),
    ],
)
def test_links_that_cannot_be(named: str, device: str, nodes: int, said: str) -> None:
    with pytest.raises(UserError) as raised:
        find_network(named, DEVICES[device], nodes, 8)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("mistral", {"num_key_value_heads": 2}),
        ("qwen2", {"num_key_value_heads": 2}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 16}),
        ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4}),
    ],
)
@pytest.mark.parametrize("lora", [None, 4])
def test_parameters_are_those_of_the_real_model(family: str, sizes: dict, lora: int | None) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from prefopt.model.load import with_adapters

    usual = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = {"vocab_size": 131, **(sizes if family == "gpt2" else {**usual, **sizes})}
    settings = ModelSettings(lora=None if lora is None else LoraSettings(r=lora))
    real = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    if settings.lora is not None:
        real = with_adapters(real, settings.lora, "CAUSAL_LM")
    found = shape_of({"model_type": family, **config}, settings, "a test")
    assert found.total == sum(p.numel() for p in real.parameters())
    assert found.trainable == sum(p.numel() for p in real.parameters() if p.requires_grad)
    assert (found.layers, found.hidden, found.vocabulary) == (3, 64, 131)
    assert found.adapters == (found.trainable if lora else 0)
    with_head = shape_of({"model_type": family, **config}, ModelSettings(), "a test", has_scalar_head=True)
    head = 0 if real.config.tie_word_embeddings else 131 * 64
    assert with_head.total == with_head.trainable == found.base - head + 64
