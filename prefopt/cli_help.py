"""The texts of `--help`: plain strings and the first comment lines of recipe files, so that they come at once."""

from __future__ import annotations

from pathlib import Path

from prefopt.recipe_files import (
    EVAL_TREE,
    GROUPS,
    PAIRS_TREE,
    ROUNDS_TREE,
    START_GROUPS,
    TRAIN_TREE,
    Tree,
    choices,
    search_path,
    title,
)

MAIN = """\
usage: prefopt COMMAND [key=value ...]

Train language models from preferences.

commands:
  train       train a run, or go on with one                 prefopt train recipe=quickstart
  sweep       how a sweep stands; go on with it              prefopt sweep status
  pairs       make preference data for prompts               prefopt pairs recipe=rso prompts=FILE policy=MODEL
  eval        measure a run or a model                       prefopt eval run=RUN measure=preferences
  data        show what would be trained on, row by row      prefopt data recipe=quickstart
  plan        what a run takes of memory, time and disk      prefopt plan recipe=simpo_llama3_instruct
  rounds      loops: build data, train on it, once more      prefopt rounds recipe=iterative_dpo rounds=3
  report      runs side by side: a table and one HTML page   prefopt report runs/
  losses      the methods; one method's equation, source     prefopt losses orpo
  doctor      what a run would meet on this machine          prefopt doctor
  export      a model for others: merged, checked, pushed    prefopt export runs/RUN out=FOLDER
  import      a recipe from TRL, LLaMA-Factory or axolotl    prefopt import dpo_config.yaml
  completion  words completed by bash, zsh or fish           source <(prefopt completion bash)

options:
  --version    print the version
  --help       this text; also prefopt train --help
"""

TRAIN = """\
usage: prefopt train [options] [group=NAME ...] [key=value ...]

Train a run, or go on with the one in its folder. Last wins: train.yaml, the groups, the recipe, the command line.
A group given on the command line is taken whole: the recipe's values for it are left out where its choice was another.

  prefopt train recipe=quickstart loss=simpo loss.beta=2.5
  prefopt train -m recipe=quickstart loss.lam=0.05,0.1,0.2

options:
  -m, --multirun      several runs, and a table at the end: every combination of comma-separated values, or what
                      hydra/sweeper= chooses, started by hydra/launcher=; see prefopt sweep --help
  --dry-run           compose, check, read the data, print the plan; write nothing
  --show-config       print each setting and where it comes from; do nothing else
  --sbatch-only       print the batch script that hydra/launcher=slurm would submit, and submit nothing
  --quiet             nothing on stdout; complaints stay on stderr, metrics.jsonl has the figures
  --json              one object on stdout at the end: folder, state, exit code, result.json; all else goes to stderr
  --config-dir DIR    a folder of your own recipes, in front of ./recipes and those of prefopt
  --allow-change KEY  go on with the run in dir=FOLDER though KEY differs: a setting, a group, data or code; repeatable
  --repeat DIR        the run of folder DIR once more, from what the folder recorded, into dir=FOLDER or DIR-repeat

Ctrl-C once saves and ends; twice leaves at once, without saving.
exit codes: 0 done, 2 misuse, 1 failure, 75 stopped by a signal and saved (the same command goes on), 130 interrupted
"""

SWEEP = """\
usage: prefopt sweep status|resume|retry|cancel [DIR] [options] [hydra/launcher=NAME] [hydra.launcher.KEY=VALUE ...]

The runs of one `prefopt train -m`. DIR: the sweep's folder, default: the one under ./sweeps that was made last.

  prefopt train -m recipe=quickstart loss.lam=0.05,0.1,0.2
  prefopt train -m recipe=quickstart 'loss.lam=tag(log,interval(0.01,1))' hydra/sweeper=random hydra.sweeper.n_trials=8
  prefopt train -m recipe=quickstart loss.lam=0.05,0.1,0.2 hydra/launcher=local_gpus hydra.launcher.gpus_per_job=2

commands:
  status              the table: queued, running, done, failed, preempted, lost; --json: all that is known
  resume              start all that is not done: never started, stopped, lost, and failed too
  retry --failed      start only what failed; --job N: only job N, repeatable
  cancel              stop what runs or is queued; it saves, and resume goes on with it; --job N: only job N, repeatable

resume and retry go on from checkpoints; with hydra/launcher=NAME they start the jobs in another way than before. A job
that failed because of a setting fails again: mend the recipe and give the same prefopt train -m once more, which leaves
out the runs that are done and unchanged.

exit codes: 0 all done, 1 a run failed or is lost, 75 a run was stopped and can go on, 2 misuse, 128 + number: a signal
"""

PAIRS = """\
usage: prefopt pairs [options] [group=NAME ...] [key=value ...]

Make preference data: answers to prompts, what they are worth, which are trained on. Last wins: pairs.yaml, the groups,
the recipe, the command line. What is in the folder already is not made again, so that the same command goes on.

  prefopt pairs recipe=rso prompts=prompts.jsonl policy=MODEL reward=MODEL out=pairs/
  prefopt pairs generate=given score=length select=best_vs_worst prompts=candidates.jsonl
  prefopt train data.train='[{path: pairs/pairs.jsonl}]' loss=dpo

options:
  --dry-run           compose, check, read the prompts; write nothing
  --show-config       print each setting and where it comes from; do nothing else
  --config-dir DIR    a folder of your own recipes; those of this command lie in DIR/pairs

exit codes: 0 done, 2 misuse, 1 failure, 75 stopped by a signal (the same command goes on), 130 interrupted
"""

EVAL = """\
usage: prefopt eval run=RUN|model=MODEL measure=NAME [options] [measure.KEY=VALUE ...] [key=value ...]

Measure a run of `prefopt train`, or any model: figures with 95 % intervals, in the terminal and in figures.json. Last
wins: eval.yaml, the measure's file, the command line. The same command goes on, and shows again what is done.

  prefopt eval run=runs/RUN
  prefopt eval model=MODEL reference=MODEL 'measure.sets={heldout: pairs.jsonl}' 'measure.loss={name: dpo, beta: 0.1}'

options:
  --dry-run           compose and check; write nothing
  --show-config       print each setting and where it comes from; do nothing else
  --json              print figures.json
  --config-dir DIR    a folder of your own recipes; those of this command lie in DIR/eval

exit codes: 0 done, 2 misuse, 1 failure, 75 stopped by a signal (the same command goes on), 130 interrupted
"""

DATA = """\
usage: prefopt data [--rows N] [--config-dir DIR] [group=NAME ...] [key=value ...]
       prefopt data [--rows N] run=FOLDER

Show what would be trained on: counts, the first rows with the trained tokens marked, every row left out and why.
All of it is shown even where prefopt train would refuse the data; the last line then says so.
run=FOLDER: the data of a run that is there, and whether they still are what it was trained on.

  prefopt data recipe=quickstart --rows 5

options:
  --rows N            rows to show (default: 3)
  --config-dir DIR    a folder of your own recipes

exit codes: 0 prefopt train would take these data, 2 it would refuse them, or misuse; 1 failure
"""

PLAN = """\
usage: prefopt plan [options] [group=NAME ...] [key=value ...]

What a run takes on a machine that need not be there: memory of a GPU by part, operations, traffic, time and disk of
each stage, and whether it fits. Loads no weights. docs/plan.md has the formulas, and how far they were off.

  prefopt plan recipe=simpo_llama3_instruct launch.num_nodes=4 launch.gpus_per_node=8 --gpu a100-80

options:
  --gpu NAME            h200, h100, h100-pcie, a100-80, a100-40, l40s, 4090, or cpu: this machine (default: h100)
  --interconnect NAMES  nvlink, pcie-4 or pcie-5 within nodes; infiniband-400 or -200, ethernet-400, -100, -25 or -10
                        between them; one of each with a comma (default: the GPU's own link, infiniband-400)
  --mfu SHARE           of the peak rate that is reached (default: 0.4; of a CPU's matrix product 0.75)
  --rows N, --prompt-tokens P, --response-tokens R
                        the data, where it is not on this machine (default: what is published of a known set)
  --json                everything as JSON, in bytes, seconds and operations
  --config-dir DIR      a folder of your own recipes
"""

ROUNDS = """\
usage: prefopt rounds recipe=NAME [options] [rounds=N] [seed=N] [dir=FOLDER] [name=NAME] [inputs.NAME=VALUE ...]

Run a loop, or go on with the one in its folder: commands that build data and train on it, round after round. What is
done is not done again, however the loop ended; the same command with more rounds goes on after the last one.

  prefopt rounds recipe=iterative_dpo rounds=3
  prefopt rounds recipe=iterative_dpo inputs.policy=MODEL 'inputs.training=[optim.lr=5e-7, loss.beta=0.05]'

options:
  --dry-run           print every command of every round; write nothing
  --config-dir DIR    a folder of your own recipes, in front of ./recipes and those of prefopt

In the folder: round-2/STEP is the folder of a step, round-2/STEP.log its output, rounds.json what is done.
exit codes: 0 done, 2 misuse, 1 a step failed, 75 stopped by a signal and saved (the same command goes on)
"""

REPORT = """\
usage: prefopt report PATHS... [options]

Runs side by side, in whatever state they are: a table here, and one HTML page. PATHS: run folders, a sweep's folder,
or folders that hold any of these. Runs that differ in nothing but train.seed are one row, with mean and deviation.

  prefopt report sweeps/quickstart-8f2a --sort rewards/accuracy
  prefopt report runs/ --metrics loss,rewards/margin --format md --no-html
  prefopt report --compare runs/dpo-1f3e runs/dpo-9ab2

options:
  --sort METRIC       best first, by the metric or the end of its name (accuracy), and which run that is;
                      -METRIC: worst first (default: the sweep's)
  --metrics A,B       the metrics shown (default: loss, accuracy and margin held out; first figures of evaluations)
  --seeds             a row for every run, though some differ in their seed only
  --format NAME       table, md, csv or json, on stdout (default: table)
  --html FILE         the page (default: report.html, in the sweep's folder or here); --no-html: none
  --figures DIR       curves, heat map, Pareto front and more, as SVG and PNG
  --objectives A,B    two or three metrics for the Pareto front and its hypervolume
  --compare A B       two runs, by name or folder: settings, versions, data, and the first step where numbers differ
"""

LOSSES = """\
usage: prefopt losses [NAME]

The methods; with a name, its equation, source, settings, defaults, and how it departs from its authors' code.
"""

COMPLETION = """\
usage: prefopt completion bash|zsh|fish

Print what makes the shell complete commands, options, group=NAME and keys, those of your own recipes too.

  source <(prefopt completion bash)                                        # in ~/.bashrc
  source <(prefopt completion zsh)                                         # in ~/.zshrc, after compinit
  prefopt completion fish > ~/.config/fish/completions/prefopt.fish
"""


def main_help() -> str:
    """`prefopt --help`."""
    return MAIN + "\n" + _listing(("recipe",), None)


def train_help(config_dir: Path | None) -> str:
    """`prefopt train --help`: with every recipe and group."""
    return TRAIN + "\n" + _listing((*GROUPS, *START_GROUPS), config_dir)


def pairs_help(config_dir: Path | None) -> str:
    """`prefopt pairs --help`: with every recipe and stage."""
    return PAIRS + "\n" + _listing(PAIRS_TREE.groups, config_dir, PAIRS_TREE)


def eval_help(config_dir: Path | None) -> str:
    """`prefopt eval --help`: with every measure."""
    return EVAL + "\n" + _listing(EVAL_TREE.groups, config_dir, EVAL_TREE)


def rounds_help(config_dir: Path | None) -> str:
    """`prefopt rounds --help`: with every loop."""
    return ROUNDS + "\n" + _listing(ROUNDS_TREE.groups, config_dir, ROUNDS_TREE)


def _listing(groups: tuple[str, ...], config_dir: Path | None, tree: Tree = TRAIN_TREE) -> str:
    folders = search_path(config_dir, tree)
    parts = []
    for group in groups:
        found = choices(group, folders)
        width = max((len(name) for name in found), default=0)
        lines = [f"  {name:<{width}}  {title(file)}".rstrip() for name, file in found.items()]
        parts.append("\n".join([f"{group}=", *lines]))
    return "\n\n".join(parts) + "\n"
