"""Recipes that are sweeps: what they run over, that the command line wins, and what is refused."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from prefopt.cli import main
from prefopt.config import compose
from prefopt.errors import UserError
from prefopt.recipe_files import choices, search_path
from prefopt.sweeps.groups import record, split
from prefopt.sweeps.local import LocalLauncher
from prefopt.sweeps.params import with_params
from prefopt.sweeps.plan import expand, plan_jobs

SWEEPS = [name for name in choices("recipe", search_path()) if name.startswith("sweep/")]
SIMPO = "recipe=sweep/simpo_grid"
RATES = "3e-7,5e-7,8e-7,1e-6"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words_of(*words: str, config_dir: Path | None = None) -> list[str]:
    of_run, starting = split(list(words), config_dir, is_sweep=True)
    return with_params(of_run, starting.sweeper.params)


def own(folder: Path, text: str) -> Path:
    (folder / "own" / "recipe").mkdir(parents=True)
    (folder / "own" / "recipe" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    return folder / "own"


@pytest.mark.parametrize("recipe", SWEEPS)
def test_every_sweep_is_as_many_runs_as_its_lists_multiply_to_and_each_passes_the_checks(recipe: str) -> None:
    words = words_of(f"recipe={recipe}")
    jobs, _, _ = plan_jobs(expand(words), None, LocalLauncher())
    assert len(jobs) == prod(len(word.split(",")) for word in words[1:])
    assert words[1] == f"optim.lr={RATES}"


def test_the_command_line_wins_over_the_recipes_lists() -> None:
    assert words_of(SIMPO, "optim.lr=1e-6", "loss.beta=2,3")[1:] == [
        "optim.lr=1e-6",
        "loss.beta=2,3",
        "loss.gamma_beta_ratio=0.1,0.3,0.5,0.8",
    ]


def test_one_param_is_set_as_hydra_has_it() -> None:
    words = words_of(SIMPO, "loss.beta=2.5", "loss.gamma_beta_ratio=0.5", "hydra.sweeper.params.optim.lr='1e-7,2e-7'")
    assert "optim.lr=1e-7,2e-7" in words


def test_a_list_is_one_value_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"hydra\.sweeper\.params\.optim\.lr: a list is one value"):
        words_of(SIMPO, "hydra.sweeper.params.optim.lr=[1e-7,2e-7]")


def test_one_run_of_a_sweep_is_refused_until_every_key_has_a_value() -> None:
    with pytest.raises(UserError, match=r"is a sweep over optim\.lr, loss\.gamma_beta_ratio, loss\.beta") as caught:
        compose([SIMPO, "optim.lr=1e-6"])
    assert "a value of each: loss.gamma_beta_ratio=0.1 loss.beta=2.0" in caught.value.hint
    assert compose([SIMPO, "optim.lr=1e-6", "loss.gamma_beta_ratio=0.3", "loss.beta=2"]).loss["beta"] == 2.0


def test_a_method_chosen_on_the_command_line_leaves_the_recipes_lists_for_it_out() -> None:
    assert words_of(SIMPO, "loss=dpo")[1:] == ["loss=dpo", f"optim.lr={RATES}"]


def test_random_draws_from_a_recipes_lists() -> None:
    assert main(["train", "-m", SIMPO, "hydra/sweeper=random", "hydra.sweeper.n_trials=3", "--dry-run"]) == 0


def test_a_sweep_that_goes_on_does_not_read_the_recipe_again() -> None:
    _, before = split([SIMPO], None, is_sweep=True)
    assert split([], None, record(before))[1].sweeper == before.sweeper
    assert list(before.sweeper.params) == ["optim.lr", "loss.gamma_beta_ratio", "loss.beta"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hydra: {sweeper: {parms: {}}}\n", "hydra.sweeper.parms: there is no such key"),
        ("hydra: {launcher: {jobs: 2}}\n", "of hydra a recipe says keys of hydra.sweeper only"),
        ("hydra: {sweeper: {params: [1]}}\n", "its params are keys and values"),
    ],
)
def test_what_a_recipe_cannot_say_of_hydra_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        words_of("recipe=mine", config_dir=own(tmp_path, text))


def test_a_mistyped_key_of_a_recipes_list_is_refused_with_the_nearest(tmp_path: Path) -> None:
    folder = own(tmp_path, 'defaults:\n  - override /loss: dpo\nhydra: {sweeper: {params: {loss.bta: "1,2"}}}\n')
    words = words_of("recipe=mine", "model.path=x/y", config_dir=folder)
    with pytest.raises(UserError, match="dpo has no such setting"):
        plan_jobs(expand(words), folder, LocalLauncher())
