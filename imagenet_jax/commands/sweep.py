"""Trains recipes x variants x seeds, each run in a folder of its own, WORKDIR/RECIPE/ARGUMENT/seedK.

    python -m imagenet_jax sweep --config configs/resnet50.py:resnet18,resnet34 --seeds 3 --workdir runs/sweep
    python -m imagenet_jax sweep --config configs/resnet50.py:all --config configs/digits.py --seeds 0,5 \\
        --workdir runs/sweep --gpus 4 --config.epochs=30
    python -m imagenet_jax report runs/sweep

Each run is a process of `train`, whose command is printed; what it says goes to train.log in its folder. The same
command again leaves out what is finished and goes on with the rest. A run that fails does not stop the others. Ctrl-C
or SIGTERM lets the runs under way save and end. --config.NAME=VALUE goes to every run. Recipes, arguments and names of
options are checked before anything runs. Without --gpus and --jobs one run at a time has the whole machine.

--slurm FILE writes an array job instead, a task for each unfinished run: edit its #SBATCH lines (partition, account,
time, GPUs and CPUs of a task) and the line that sets up Python, then sbatch FILE.

Leaves with 0; 1 after an error or where any run failed; 143 or 130 when SIGTERM or Ctrl-C stopped it.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from imagenet_jax import sweep
from imagenet_jax.command_line import option_names, parsing, recipes
from imagenet_jax.errors import Stopped, UserError, writing
from imagenet_jax.sweep import Run

_MOST_SEEDS = 10_000


def main() -> int:
    """The whole command."""
    parser = _parser()
    arguments, options = parser.parse_known_args()
    _check_options(options, vars(arguments))
    runs = plan(arguments.config, arguments.seeds, arguments.workdir, options)
    slots = _slots(arguments.gpus, arguments.jobs)
    rest = _list(runs)
    if arguments.dry_list:
        print('\n'.join(map(sweep.command, rest)))
    elif arguments.slurm and rest:
        with writing(arguments.slurm):
            arguments.slurm.write_text(sweep.slurm_script(rest))
        print(f'edit {arguments.slurm}, then: sbatch {arguments.slurm}')
    elif rest:
        return _run(rest, slots)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser('sweep', __doc__)
    parser.add_argument('--config', metavar='FILE[:ARG,ARG]', action='append', required=True,
                        help='a recipe, or several of what it takes after a colon; all: all; may be given again')
    parser.add_argument('--seeds', metavar='N', type=_seeds, default=(0,), help='so many, from 0, or a list: 0,3,5')
    parser.add_argument('--workdir', metavar='DIR', type=parsing.path, required=True,
                        help='where the folders of runs go')
    several = parser.add_mutually_exclusive_group()
    several.add_argument('--gpus', metavar='N', type=parsing.whole(1, 1024), default=0,
                         help='run N at a time, each on a GPU of its own')
    several.add_argument('--jobs', metavar='N', type=parsing.whole(1, 1024), default=1,
                         help='run N at a time')
    several.add_argument('--slurm', metavar='FILE', type=parsing.path,
                         help='write an array job for SLURM, and run nothing')
    parser.add_argument('--dry-list', action='store_true', help='say what would run, and run nothing')
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    if (not re.fullmatch(r'[0-9]{1,18}(,[0-9]{1,18})*,?', text)
            or (',' not in text and not 1 <= int(text) <= _MOST_SEEDS)):
        raise argparse.ArgumentTypeError(f'{text[:40]!r} must be a number of seeds, such as 3, at most {_MOST_SEEDS}, '
                                         'or a list such as 0,3,5')
    return tuple(map(int, text.strip(',').split(','))) if ',' in text else tuple(range(int(text)))


def _check_options(options: Sequence[str], flags: Iterable[str]) -> None:
    for option in options:
        if re.match(r'--?[a-zA-Z]', option) and not option.startswith('--config.'):
            raise option_names.unknown_flag(option.partition('=')[0], recipes.known(), flags)
        if not re.fullmatch(r'--config\.[\w.]+=.*', option, re.DOTALL):
            raise UserError(f'not an argument of sweep: {option}; options of runs are given as --config.NAME=VALUE')
        if option.startswith('--config.seed='):
            raise UserError(f'{option}: the seeds of a sweep are given as --seeds')


def plan(given: Sequence[str], seeds: Sequence[int], workdir: Path, options: Sequence[str]) -> list[Run]:
    """Every run that --config, --seeds and the options ask for, each once, its config made.

    Raises:
      UserError: no such recipe, argument or option; two recipes that would share a folder.
    """
    runs = {}
    for recipe, folder in (pair for each in given for pair in _expand(each)):
        for seed in dict.fromkeys(seeds):
            config = recipes.make(recipe, [f'--config.seed={seed}', *options]).to_dict()
            run = Run(recipe, seed, tuple(options), workdir / folder / f'seed{seed}', config)
            if runs.setdefault(run.folder, run) != run:
                raise UserError(f'{runs[run.folder].recipe} and {recipe} would both go to {run.folder}: rename one, or '
                                'sweep them into two workdirs')
    return list(runs.values())


def _expand(given: str) -> list[tuple[str, Path]]:
    """(as --config takes it, its folder) of each argument in FILE:ARG,ARG."""
    path, colon, wanted = given.partition(':')
    known, stem = recipes.arguments(path), Path(path).stem
    if not colon:
        return [(f'{path}:{known[0]}', Path(stem) / known[0]) if known else (path, Path(stem))]
    if wanted == 'all' and not known:
        raise UserError(f'{given}: {path} lists nothing that it takes after a colon, as MODELS or VARIANTS')
    return [(f'{path}:{each}', Path(stem) / each) for each in (known if wanted == 'all' else wanted.split(','))]


def _slots(gpus: int, jobs: int) -> list[dict[str, str]]:
    """What each run of several at a time finds in its environment."""
    if not gpus:
        return [{} for _ in range(max(1, jobs))]
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    numbers = visible.split(',') if visible else list(map(str, range(gpus)))
    if gpus > len(numbers):
        raise UserError(f'--gpus {gpus}: CUDA_VISIBLE_DEVICES={visible} names {len(numbers)}')
    return [{'CUDA_VISIBLE_DEVICES': number} for number in numbers[:gpus]]


def _list(runs: Sequence[Run]) -> list[Run]:
    """Shows what there is to do; answers the runs that are not done."""
    states = {run: run.state for run in runs}
    rest = [run for run, state in states.items() if state != 'done']
    width = max(map(len, states.values()))
    print(f'{len(runs)} runs, {len(runs) - len(rest)} done:')
    print('\n'.join(f'  {state:{width}}  {run.folder}' for run, state in states.items()), flush=True)
    return rest


def _run(runs: Sequence[Run], slots: Sequence[dict[str, str]]) -> int:
    try:
        failed = sweep.carry_out(runs, slots)
    except Stopped as stopped:
        print(f'stopped by {stopped}; this goes on from there:\n    {shlex.join(sys.orig_argv)}')
        raise
    for run, why in failed.items():
        print(f'{run.folder} {why}\n    {sweep.command(run)}')
    print(f'{len(runs) - len(failed)} of {len(runs)} runs done; python -m imagenet_jax report shows them in one table')
    return 1 if failed else 0
