"""Real runs of main.py in subprocesses, small enough for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
WITHOUT_TENSORFLOW = {'PYTHONPATH': str(Path(__file__).parent / 'without_tensorflow')}
# Small: 23 batches an epoch, two epochs, a save every five steps.
TINY = ('--config', 'configs/digits.py', '--config.model.name=resnet8_cifar', '--config.augment.size=8',
        '--config.augment.pad=1', '--config.eval.size=8', '--config.eval.resize=8', '--config.epochs=2',
        '--config.schedule.warmup_epochs=1', '--config.log_steps=1', '--config.checkpoint_steps=5',
        '--config.eval_epochs=1', '--config.confusion_epochs=0')


def environment(devices: int = 1) -> dict:
    """A subprocess's environment: CPU, so many simulated devices, compiling kept short."""
    flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1'
    return {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}


def start(workdir: Path, *arguments: str, base: tuple[str, ...] = TINY, devices: int = 1, board: bool = False,
          ) -> subprocess.Popen:
    """Starts main.py, its output (both streams) readable as text; `board`: with event files for TensorBoard."""
    command = [sys.executable, 'main.py', '--workdir', str(workdir), *base, *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            start_new_session=True, env=environment(devices) | ({} if board else WITHOUT_TENSORFLOW))


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Waits for the process, checks its exit code and answers its output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, f'exit {process.returncode}, expected {code}:\n{output}'
    return output


def run(workdir: Path, *arguments: str, code: int = 0, **kwargs) -> str:
    """Runs main.py to its end."""
    return finish(start(workdir, *arguments, **kwargs), code)


def rows(workdir: Path) -> list[dict]:
    """metrics.jsonl so far, a torn last line left out."""
    path = workdir / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


def numbers(workdir: Path) -> list[dict]:
    """Rows without what a clock or an interruption decides."""
    clock = ('seconds', 'train/images_per_s', 'train/input_wait', 'resume/step')
    kept = [{k: v for k, v in row.items() if k not in clock} for row in rows(workdir)]
    return [row for row in kept if set(row) != {'step'}]


def stop_when(process: subprocess.Popen, condition, number: int = signal.SIGKILL) -> None:
    """Sends the whole process group a signal as soon as the condition holds."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f'ended before its moment:\n{process.stdout.read()}'
        assert time.monotonic() < deadline, 'its moment never came'
        time.sleep(0.002)
    os.killpg(process.pid, number)


def saved(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints."""
    folder = workdir / 'checkpoints'
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def contents(workdir: Path, step: int) -> dict:
    """Array name -> [shape, dtype, CRC-32] of a checkpoint."""
    listed = json.loads((workdir / 'checkpoints' / str(step) / 'contents' / 'metadata').read_text())
    return {name: value for name, value in listed.items() if name != 'crc32'}
