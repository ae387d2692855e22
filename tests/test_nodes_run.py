"""Several nodes, one run: the numbers of one process, and days on which something is wrong with one of them."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from nodes_bed import Bed, finish, unused_port, wait_for_step
from tiny import last_step, metrics

from prefopt.run_folder import MANIFEST, read_json

LONG = ("train.epochs=200", "train.save_every=never", "train.eval_every=never")
HOST = socket.gethostname()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    made = Bed(tmp_path_factory.mktemp("nodes"))
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [[], pytest.param(["deepspeed=zero3"], marks=pytest.mark.long)], ids=["ddp", "zero3"]
)
def test_two_nodes_give_the_numbers_of_one_process(engine: list[str], bed: Bed, tmp_path: Path) -> None:
    more = ["loss=dpo", "train.max_steps=5"]
    alone = bed.start(tmp_path / "one", *more)
    code, _, err = finish(alone)
    assert code == 0, err
    nodes = bed.start_nodes(tmp_path / "two", *more, *engine)
    ends = [finish(node) for node in nodes]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "node 1 of 2 runs ranks 1 to 1" in ends[1][1]
    assert "starts in" in ends[0][1]
    losses = {name: [line["loss"] for line in metrics(tmp_path / name) if "lr" in line] for name in ("one", "two")}
    assert len(losses["one"]) == 5
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
    manifest = read_json(tmp_path / "two" / MANIFEST)
    assert manifest is not None
    by = "DeepSpeed ZeRO-3" if engine else "DDP"
    assert manifest["world"] == {"device": "cpu", "num_processes": 2, "num_nodes": 2, "engine": by}
    assert len(manifest["starts"]) == 1
    assert sorted(file.name for file in (tmp_path / "two" / "logs").iterdir()) == ["rank-0.log", "rank-1.log"]
    assert not [file.name for file in (tmp_path / "two").iterdir() if file.name.startswith(".")]
    again = [finish(node) for node in bed.start_nodes(tmp_path / "two", *more, *engine)]
    assert [code for code, _, _ in again] == [0, 0], again
    assert "is done" in again[1][1]


@pytest.mark.slow
def test_a_signal_to_any_node_saves_and_stops_all_and_a_killed_node_takes_the_others_along(
    bed: Bed, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    nodes = bed.start_nodes(run_dir, *LONG)
    wait_for_step(run_dir, 2, *nodes)
    for _ in range(4):  # clusters repeat themselves
        nodes[1].send_signal(signal.SIGUSR2)
        time.sleep(0.01)
    ends = [finish(node) for node in nodes]
    assert [code for code, _, _ in ends] == [75, 75], ends
    assert "stopped by a signal after step" in ends[0][2] + ends[1][2]
    saved = last_step(run_dir)
    assert [folder.name for folder in (run_dir / "checkpoints").iterdir()] == [f"step-{saved:08d}"]

    nodes = bed.start_nodes(run_dir, *LONG)
    wait_for_step(run_dir, saved + 2, *nodes)
    killed = time.monotonic()
    nodes[1].kill()
    code, out, err = finish(nodes[0])
    assert time.monotonic() - killed < 60
    assert code == 1
    assert f"resuming after step {saved}" in out
    assert f"prefopt: node 1 ({HOST}) went away" in err
    said = read_json(run_dir / "exit.json")
    assert said is not None
    assert said["message"].startswith(f"node 1 ({HOST}) went away")


@pytest.mark.slow
@pytest.mark.long
def test_node_0_killed_takes_the_others_along_and_the_same_commands_go_on(bed: Bed, tmp_path: Path) -> None:
    """Node 0 leads: it alone writes the run folder and holds its lock, so its death is the worst one."""
    run_dir = tmp_path / "run"
    more = ["train.epochs=200", "train.save_every=3", "train.eval_every=never"]
    nodes = bed.start_nodes(run_dir, *more)
    wait_for_step(run_dir, 4, *nodes)
    killed = time.monotonic()
    nodes[0].kill()
    code, _, err = finish(nodes[1])
    assert time.monotonic() - killed < 60
    assert code == 1
    assert f"prefopt: node 0 ({HOST}) went away" in err
    finish(nodes[0])
    reached = last_step(run_dir)

    nodes = bed.start_nodes(run_dir, *more)
    wait_for_step(run_dir, reached + 2, *nodes)
    nodes[0].send_signal(signal.SIGTERM)
    ends = [finish(node) for node in nodes]
    assert [code for code, _, _ in ends] == [75, 75], ends
    assert "resuming after step" in ends[0][1]


def fake_version(folder: Path, package: str) -> Path:
    """A folder that, put before all others, says that a package has another version."""
    info = folder / f"{package}-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
    return folder


def test_nodes_that_are_not_alike_or_do_not_share_the_folder_are_refused(bed: Bed, tmp_path: Path) -> None:
    port = unused_port()
    common = ["launch.num_nodes=2", f"launch.rendezvous=127.0.0.1:{port}"]
    run_dir, other = tmp_path / "run", tmp_path / "elsewhere"
    other.mkdir()

    path = fake_version(tmp_path / "path", "peft")
    nodes = [
        bed.start(run_dir, *common, "launch.node_rank=0"),
        bed.start(run_dir, *common, "launch.node_rank=1", path=path),
    ]
    for code, _, err in map(finish, nodes):
        assert code == 2
        assert f"node 1 ({HOST}) has peft 0.0.1 and not {version('peft')} as node 0 ({HOST}) has" in err
    assert not run_dir.exists()

    nodes = [
        bed.start(run_dir, *common, "launch.node_rank=0"),
        bed.start(run_dir, *common, "launch.node_rank=1", "optim.lr=2e-3"),
    ]
    for code, _, err in map(finish, nodes):
        assert code == 2
        assert "other settings than node 0 (there -> node 0): optim.lr: 0.002 -> 0.001" in err

    nodes = [
        bed.start(Path("run"), *common, "launch.node_rank=0", cwd=tmp_path),
        bed.start(Path("run"), *common, "launch.node_rank=1", cwd=other),
    ]
    for code, _, err in map(finish, nodes):
        assert code == 2
        assert f"node 1 ({HOST}) does not see {run_dir}: it must be on a file system that all nodes share" in err
    assert not run_dir.exists()
    assert not any(other.iterdir())


def test_a_node_that_nobody_joins_says_so_and_ends(bed: Bed, tmp_path: Path) -> None:
    port = unused_port()
    common = ["launch.num_nodes=2", f"launch.rendezvous=127.0.0.1:{port}", "launch.timeout_minutes=0.02"]
    code, _, err = finish(bed.start(tmp_path / "run", *common, "launch.node_rank=0"))
    assert code == 1
    assert f"node 1 did not come to 127.0.0.1:{port} in 0.02 minutes" in err
    code, _, err = finish(bed.start(tmp_path / "run", *common, "launch.node_rank=1"))
    assert code == 1
    assert f"node 0 does not answer at 127.0.0.1:{port}" in err
    with socket.create_server(("", port)):
        code, _, err = finish(bed.start(tmp_path / "run", *common, "launch.node_rank=0"))
        assert code == 2
        assert f"launch.rendezvous=127.0.0.1:{port}: node 0 cannot listen there (Address already in use)" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bad_data_on_node_0_end_the_other_nodes_too(bed: Bed, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    nodes = bed.start_nodes(tmp_path / "run", f"data.train=[{{path: {empty}}}]")
    ends = [finish(node) for node in nodes]
    assert [code for code, _, _ in ends] == [2, 2], ends
    assert f"node 0 ({HOST}) ended: " in ends[1][2]


@pytest.mark.slow
@pytest.mark.long
def test_two_nodes_take_the_folder_of_a_run_that_has_done_no_step(bed: Bed, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code, _, err = finish(bed.start(run_dir, "train.best_metric=eval/heldout/nothing"))
    assert (code, "no evaluation gives eval/heldout/nothing" in err) == (2, True), err
    assert last_step(run_dir) == 0
    ends = [finish(node) for node in bed.start_nodes(run_dir, "train.max_steps=2")]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "held a run that had done no step; it starts anew" in ends[0][1]
    assert "nothing" not in (run_dir / "manifest.json").read_text()
    assert last_step(run_dir) == 2
