"""What saves memory on a GPU saves it and changes no number beyond its own precision."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import ragged
import torch
from gpu_bed import GPU, LongSet, gpu_run, gradient_of, make_engine, one_step, save_wide_model

from prefopt.settings import LoraSettings, RunSettings

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wide_model(tmp_path_factory.mktemp("gpu"))


@pytest.fixture
def long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`one_step` over rows long enough for activations to be most of the memory."""
    monkeypatch.setattr(ragged, "RaggedSet", LongSet)


def wide_run(wide: Path) -> RunSettings:
    run = gpu_run()
    run.model.path = str(wide)
    return run


def measured(engine, how: str) -> tuple[torch.Tensor, int, int]:
    """The gradient of a step, and the most bytes that were given out and held during it."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    gradient = gradient_of(one_step(engine, "orpo", how))
    return gradient, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


@pytest.mark.usefixtures("long_rows")
@pytest.mark.parametrize("lora", [False, True], ids=["all_weights", "lora"])
def test_recomputing_and_offloading_save_memory_and_change_nothing(wide: Path, lora: bool) -> None:
    gradients, peaks = {}, {}
    for kind, every, offload in (("kept", None, False), ("recomputed", 1, False), ("offloaded", 1, True)):
        run = wide_run(wide)
        run.model.checkpoint_every, run.model.offload_activations = every, offload
        run.model.lora = LoraSettings(r=4) if lora else None
        engine = make_engine(run)
        gradients[kind], peaks[kind], _ = measured(engine, "one")
        del engine
    assert peaks["recomputed"] < peaks["kept"] / 2
    assert peaks["offloaded"] < peaks["recomputed"]
    for kind in ("recomputed", "offloaded"):
        difference = (gradients[kind] - gradients["kept"]).norm()
        assert difference <= 1e-4 * gradients["kept"].norm(), kind


@pytest.mark.usefixtures("long_rows")
def test_a_step_that_does_not_fit_updates_nothing_and_goes_when_it_is_cut_finer(wide: Path) -> None:
    engine = make_engine(wide_run(wide))
    expected, _, in_parts = measured(engine, "alone")
    _, _, at_once = measured(engine, "one")
    assert at_once > 1.5 * in_parts
    limit = (at_once + in_parts) / 2
    before = {n: p.detach().cpu() for n, p in engine.policy.named_parameters()}
    engine.set_lr(1e-3)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(Exception, match=r"(?i)memory"):
            one_step(engine, "orpo", "one")
        assert all(torch.equal(p.cpu(), before[n]) for n, p in engine.policy.named_parameters())
        engine.optimizer.zero_grad(set_to_none=True)
        got, _, _ = measured(engine, "alone")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (got - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_states_of_eight_bits_train_and_go_on_from_a_checkpoint(name: str, wide: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from prefopt.train import checkpoint
    from prefopt.train.checkpoint import Progress

    def steps(engine, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            engine.set_lr(1e-3)
            losses.append(one_step(engine, "sft", "one")["metrics"]["loss"])
        return losses

    run = wide_run(wide)
    run.optim.name = name
    engine = make_engine(run)
    losses = steps(engine, 5)
    assert losses[-1] < losses[0]
    matrix = engine.policy.pretrained.model.layers[0].mlp.up_proj.weight
    state = engine.optimizer.state[matrix]  # type: ignore[attr-defined]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    assert getattr(state["state1"], "is_paged", False) == (name == "paged_adamw_8bit")
    saved = checkpoint.save(engine, tmp_path, Progress(step=5), keep=1)
    steps(engine, 2)
    fresh = make_engine(run)
    checkpoint.load(fresh, saved)
    steps(fresh, 2)
    for (n, a), (_, b) in zip(engine.policy.named_parameters(), fresh.policy.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=n)


@pytest.mark.parametrize(("base", "dtype"), [("nf4", torch.uint8), ("int8", torch.int8)])
def test_adapters_train_over_few_bits(base: str, dtype: torch.dtype, wide: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = wide_run(wide)
    run.model.dtype = "bfloat16"
    run.model.lora = LoraSettings(r=4, base=base)
    run.model.checkpoint_every = 1
    engine = make_engine(run)
    assert sum(p.dtype == dtype for p in engine.policy.parameters()) == 7 * 8
    assert {p.device.type for p in engine.policy.parameters()} == {GPU}
    once, often = one_step(engine, "orpo", "one"), one_step(engine, "orpo", "alone")
    assert often["metrics"]["loss"] == pytest.approx(once["metrics"]["loss"], rel=0.02)
    a, b = gradient_of(once), gradient_of(often)
    assert a.isfinite().all()
    assert a.norm() > 0
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.97
