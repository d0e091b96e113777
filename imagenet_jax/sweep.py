"""Many runs: recipes x variants x seeds, each a process of `train` in a folder of its own. Imports no JAX."""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from imagenet_jax import record
from imagenet_jax.errors import Stopped
from imagenet_jax.report import folders

_TRAIN = '-m', 'imagenet_jax', 'train'  # of the environment, and not a main.py that lies in the current folder
_POLL_S = 0.1       # between looks at the processes
_ESTIMATE_S = 5.0   # between looks at how far they are, until one has a speed


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      recipe: as --config takes it.
      seed: its config.seed.
      options: the others that the command line changes, as --config.NAME=VALUE.
      folder: its workdir.
      config: what these make, as config.json has it.
    """
    recipe: str
    seed: int
    options: tuple[str, ...]
    folder: Path
    config: Mapping = dataclasses.field(repr=False, compare=False)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a person would type behind `python`."""
        return (*_TRAIN, '--config', self.recipe, f'--config.seed={self.seed}', *self.options, '--workdir',
                str(self.folder))

    @property
    def state(self) -> str:
        """'done' where this very config came to its end; else how far it is, for `train` to go on with or to refuse."""
        found = folders.read(self.folder)
        asked = {name: value for name, value in found.entry.items() if name != 'run'}
        if found.finished and asked == json.loads(json.dumps(self.config)):
            return 'done'
        return f'step {found.step} of {found.steps}' if found.rows else 'new'

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen:
        """Starts it, in a session of its own, so that Ctrl-C on a terminal reaches the sweep alone."""
        record.make_folder(self.folder)
        with (self.folder / 'train.log').open('a') as log:
            log.write(f'\n$ {command(self)}\n')
            log.flush()
            return subprocess.Popen([sys.executable, *self.arguments], stdout=log, stderr=subprocess.STDOUT,
                                    env={**os.environ, **environment}, start_new_session=True)


def command(run: Run) -> str:
    """What a person would type."""
    return shlex.join(['python', *run.arguments])


def carry_out(runs: Sequence[Run], slots: Sequence[Mapping[str, str]]) -> dict[Run, str]:
    """Runs them, as many at a time as there are slots, and tells of each.

    Args:
      runs: those to run, in their order.
      slots: what each slot adds to the environment of its processes.

    Returns:
      The runs that failed, each with the last thing it said.

    Raises:
      Stopped: a signal came; it was handed on, and the runs under way ended, saved.
    """
    waiting, free, failed, going = list(runs), list(slots), {}, {}
    ended, told, looked = 0, False, time.monotonic()
    with _signals() as caught, contextlib.ExitStack() as stack:
        handed_on = 0
        while going or (waiting and not caught):
            while waiting and free and not caught:
                run, slot = waiting.pop(0), free.pop(0)
                print(command(run), flush=True)
                process = run.start(slot)
                going[run] = process, slot
                stack.callback(process.terminate)  # does nothing where it has ended, as all have but after an error
            time.sleep(_POLL_S)
            for process, _ in going.values() if len(caught) > handed_on else ():
                process.terminate()
            handed_on = len(caught)
            for run in [run for run, (process, _) in going.items() if process.poll() is not None]:
                process, slot = going.pop(run)
                free.append(slot)
                ended += 1
                if process.returncode and not caught:
                    failed[run] = _why(run, process.returncode)
                print(f'{ended} of {len(runs)}: {run.folder}: {failed.get(run) or _result(run)}', flush=True)
                told = bool(caught) or _tell_left([*going, *waiting], runs, len(slots))
            if not told and time.monotonic() > looked + _ESTIMATE_S:
                told, looked = _tell_left([*going, *waiting], runs, len(slots)), time.monotonic()
    if caught:
        raise Stopped(caught[0])
    return failed


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """While entered, signals that would end this process are taken down instead; what nohup ignores stays ignored."""
    caught = []
    before = {number: signal.signal(number, lambda number, frame: caught.append(number))
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _why(run: Run, code: int) -> str:
    said = folders.last_words(run.folder / 'train.log')
    how = signal.Signals(-code).name if code < 0 else f'exit code {code}'
    return f'failed ({how}): {said}'


def _result(run: Run) -> str:
    found = folders.read(run.folder)
    if not found.finished:
        return f'ended at step {found.step}'
    scores = [f'{name.removeprefix("eval/")} {value:.4f}' for name, value in (found.evaluations or [{}])[-1].items()
              if name.startswith('eval/') and isinstance(value, float)]
    return '  '.join(['done', *scores, *([] if found.seconds is None else [_clock(found.seconds)])])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _tell_left(rest: Sequence[Run], runs: Sequence[Run], at_once: int) -> bool:
    """Says how long the rest will take, by what runs took that have come some way; whether there was any."""
    found = {run: folders.read(run.folder) for run in runs}
    whole = {run: each.whole_seconds for run, each in found.items() if each.whole_seconds is not None}
    if rest and whole:
        seconds = 0.0
        for run in rest:  # as long as itself so far, else as the same recipe's, else as any
            alike = [whole[other] for other in whole if other.recipe == run.recipe] or [*whole.values()]
            done = found[run].step / found[run].steps if found[run].steps else 0
            seconds += max(0.0, 1 - done) * whole.get(run, statistics.fmean(alike))
        print(f'about {_clock(seconds / min(at_once, len(rest)))} left, {len(rest)} to go', flush=True)
    return bool(whole)


def slurm_script(runs: Sequence[Run]) -> str:
    """An array job with a task for each run, which SLURM may put back into the queue: a run goes on from its save."""
    lines = [shlex.quote(f'{command(run)} >> {shlex.quote(str(run.folder / "train.log"))} 2>&1') for run in runs]
    places = shlex.join(str(run.folder) for run in runs)
    return _SLURM.format(last=len(runs) - 1, root=shlex.quote(os.getcwd()), runs='\n'.join(lines), folders=places)


_SLURM = '''#!/bin/bash
# sbatch THIS FILE. Edit the #SBATCH lines to your cluster (partition, account, time, GPUs, CPUs), and what sets up
# Python below. A %N behind the array's range lets N tasks run at a time.
#SBATCH --job-name=sweep
#SBATCH --array=0-{last}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
# Two minutes before the time is over the run is told to save; it then goes back into the queue.
#SBATCH --signal=TERM@120

cd {root} || exit 1
# source .venv/bin/activate

runs=(
{runs}
)
folders=({folders})

mkdir -p "${{folders[$SLURM_ARRAY_TASK_ID]}}"
eval "srun ${{runs[$SLURM_ARRAY_TASK_ID]}}"
code=$?
[ $code -ne 143 ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
exit $code
'''
