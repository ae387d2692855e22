"""AlpacaEval's figures from its files, against the published leaderboard and alpaca_eval's own code."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from prefopt.errors import UserError
from prefopt.evaluate.measure import EvalPlace
from prefopt.evaluate.measures.alpaca_eval import AlpacaEval
from prefopt.evaluate.settings import EvalSettings

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "alpaca_eval"
FILES = sorted((DATA / "annotations_weighted_gpt4_turbo").glob("*.json.gz"))
needs_data = pytest.mark.skipif(not FILES, reason="shared/data/alpaca_eval is not there")


def named(files: list[Path]) -> dict[str, str]:
    return {file.name.removesuffix(".json.gz"): str(file) for file in files}


def published() -> dict[str, dict[str, str]]:
    with open(DATA / "leaderboard_AlpacaEval_2.csv", encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def place(tmp_path: Path) -> EvalPlace:
    return EvalPlace(EvalSettings(), tmp_path, "", None, "cpu")


def write(
    path: Path, preferences: list[float | None], lengths: list[int], instructions: list[str] | None = None
) -> str:
    rows = [
        {
            "instruction": instructions[i] if instructions else f"question {i}",
            "output_1": "b" * 100,
            "output_2": chr(97 + i % 26) * lengths[i],
            "generator_1": "base",
            "generator_2": path.stem,
            "preference": preference,
        }
        for i, preference in enumerate(preferences)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def test_win_rate_is_the_mean_of_preferences_and_ties_count_half(tmp_path):
    file = write(tmp_path / "mine.json", [2, 1, 1.5, 0, 1.25], [10, 20, 30, 40, 50])
    found = AlpacaEval([file], expected=5, difficulty="none")(place(tmp_path))
    rate = found.figures["mine/win_rate"]
    # Preferences 1, 0, 0.5, 0.5, 0.25: mean 0.45, variance 0.55 / 4, standard error sqrt(0.1375 / 5) = 0.165831
    assert (rate.value, rate.count) == (pytest.approx(45.0), 5)
    assert rate.high - rate.value == pytest.approx(1.96 * 16.5831, abs=1e-3)
    assert found.figures["mine/discrete_win_rate"].value == pytest.approx(40.0)  # 1 won, 2 ties, 2 lost
    assert found.figures["mine/average_length"].value == 30


def test_missing_preference_is_an_error_that_names_the_row(tmp_path):
    file = write(tmp_path / "mine.json", [2, None, 1], [10, 20, 30])
    with pytest.raises(UserError, match=r"1 of 3 instructions have no preference.*mine.json:2"):
        AlpacaEval([file], expected=3, difficulty="none")(place(tmp_path))


def test_missing_rows_are_counted_where_they_are_allowed(tmp_path):
    file = write(tmp_path / "mine.json", [2, None, 1], [10, 20, 30])
    found = AlpacaEval([file], expected=5, allow_missing=True, difficulty="none")(place(tmp_path))
    assert found.left_out == {"no preference": 3}
    assert found.figures["mine/win_rate"].value == 50
    assert "3 of 5" in found.notes[0]


def test_more_rows_than_expected_are_an_error_even_where_missing_ones_are_allowed(tmp_path):
    file = write(tmp_path / "mine.json", [2, 1, 1], [10, 20, 30])
    with pytest.raises(UserError, match=r"3 rows, 2 are expected"):
        AlpacaEval([file], expected=2, allow_missing=True, difficulty="none")(place(tmp_path))


def test_instruction_judged_twice_is_an_error(tmp_path):
    file = write(tmp_path / "mine.json", [2, 1], [10, 20], ["same", "same"])
    with pytest.raises(UserError, match="judged before"):
        AlpacaEval([file], expected=2, difficulty="none")(place(tmp_path))


@pytest.mark.parametrize("value", [0.5, 2.5, -1, "2", True])
def test_preference_off_the_scale_is_an_error(tmp_path, value):
    file = write(tmp_path / "mine.json", [2, value], [10, 20])
    with pytest.raises(UserError, match="preference is"):
        AlpacaEval([file], expected=2, difficulty="none")(place(tmp_path))


def test_joint_difficulty_of_two_models_is_refused():
    with pytest.raises(ValueError, match="3 models"):
        AlpacaEval(["a.json", "b.json"])


@needs_data
def test_incomplete_published_files_are_refused_by_number_and_instruction(tmp_path):
    with pytest.raises(UserError, match=r"alpaca-7b_concise: 1 of 805 instructions.*the first that is not there is '"):
        AlpacaEval(named(FILES))(place(tmp_path))


@needs_data
@pytest.mark.slow
def test_nine_models_have_their_published_win_rates(tmp_path):
    found = AlpacaEval(named(FILES), allow_missing=True)(place(tmp_path))
    board = published()
    rows = {row["model"]: row for row in found.tables["models"]}
    assert len(rows) == 9
    for name, row in rows.items():
        theirs = board[name]
        assert row["win_rate"] == pytest.approx(float(theirs["win_rate"]), abs=1e-6)
        assert row["standard_error"] == pytest.approx(float(theirs["standard_error"]), abs=1e-6)
        assert row["discrete_win_rate"] == pytest.approx(float(theirs["discrete_win_rate"]), abs=1e-6)
        counts = [int(theirs[key]) for key in ("n_wins", "n_wins_base", "n_draws", "n_total")]
        assert [row[key] for key in ("wins", "losses", "ties", "count")] == counts
    assert found.left_out == {"no preference": 1 + 3}
    distances = {
        n: r["length_controlled_win_rate"] - float(board[n]["length_controlled_winrate"]) for n, r in rows.items()
    }
    # alpaca-7b_verbose: the published fit has psi = 0.58 where others of its kind have 1, which a strong L1 penalty
    # does; which rows make cross-validation choose it are in a file on the hub.
    assert abs(distances.pop("alpaca-7b_verbose")) < 2.5
    assert all(abs(distance) < 1 for distance in distances.values()), distances
    # All are in the published order but alpaca-7b, 5.88 there, which comes behind gemma-2b-it (5.44) and phi-2-sft
    # (5.85): ours are 5.29, 5.34 and 5.83.
    theirs = {name: float(board[name]["length_controlled_winrate"]) for name in distances}
    for one, other in itertools.permutations(distances, 2):
        if theirs[one] > theirs[other] + 0.5:
            assert rows[one]["length_controlled_win_rate"] > rows[other]["length_controlled_win_rate"], (one, other)
    assert [row["model"] for row in found.tables["models"][:2]] == ["NullModel", "claude-instant-1.2"]
    # A constant answer is in the table, and a note says so; of the other eight none is suspected.
    assert next(note for note in found.notes if "are the same" in note).startswith("NullModel: of 805 answers 100%")
    assert sum("are the same" in note for note in found.notes) == 1


@needs_data
@pytest.mark.slow
def test_without_the_constant_answer_the_others_move_by_less_than_two_points(tmp_path):
    rates = [
        {row["model"]: row["length_controlled_win_rate"] for row in found.tables["models"]}
        for found in (
            AlpacaEval(named(FILES), allow_missing=True)(place(tmp_path)),
            AlpacaEval(named([f for f in FILES if "Null" not in f.name]), allow_missing=True)(place(tmp_path)),
        )
    ]
    moved = {name: rates[1][name] - rates[0][name] for name in rates[1]}
    assert max(abs(value) for value in moved.values()) < 2


def gamed_file(path: Path, rows: int) -> str:
    """A file of the hub's columns, drawn: two baselines of which one is shorter, the other longer."""
    rng = np.random.default_rng(3)
    difficulty = rng.normal(0, 1.5, rows)
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        )
        for model, mean in (("concise", 1.2), ("verbose", -0.5)):
            for i in range(rows):
                delta = rng.normal(mean, 0.7)
                p = 1 / (1 + np.exp(1.6 * np.tanh(delta) - 0.7 * difficulty[i] - rng.normal(0, 1)))
                table.writerow([model, p, i, delta, difficulty[i], False])
    return str(path)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["claude-instant-1.2", "gemma-2b-it"])
def test_with_the_hubs_file_the_fit_is_that_of_alpaca_eval(name, tmp_path, monkeypatch):
    # setuptools no longer has pkg_resources, which alpaca_eval imports and does not need for this.
    monkeypatch.setitem(sys.modules, "pkg_resources", ModuleType("pkg_resources"))
    glm = pytest.importorskip("alpaca_eval.metrics.glm_winrate")
    path = gamed_file(tmp_path / "df_gamed.csv", 805)
    # The file is on a hub that a test does not reach; what is replaced is alpaca_eval's download of it.
    monkeypatch.setattr(glm, "hf_hub_download", lambda **_: path)
    import pandas

    source = DATA / "annotations_weighted_gpt4_turbo" / f"{name}.json.gz"
    theirs = glm.get_length_controlled_winrate(
        pandas.read_json(source), save_weights_dir=None, is_warn_extreme_changes=False
    )
    found = AlpacaEval(named([source]), difficulty=path)(place(tmp_path))
    (row,) = found.tables["models"]
    assert row["win_rate"] == pytest.approx(theirs["win_rate"], abs=1e-9)
    assert row["length_controlled_win_rate"] == pytest.approx(theirs["length_controlled_winrate"], abs=0.05)
    assert row["lc_standard_error"] == pytest.approx(theirs["lc_standard_error"], abs=0.01)


def test_gamed_file_without_an_instruction_is_refused(tmp_path):
    path = gamed_file(tmp_path / "df_gamed.csv", 2)
    file = write(tmp_path / "mine.json", [2, 1, 1], [10, 20, 30])
    with pytest.raises(UserError, match="no row has index 2, of 3"):
        AlpacaEval([file], expected=3, difficulty=path)(place(tmp_path))
