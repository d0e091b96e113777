"""The process a run lives in: JAX's settings before it starts, signals, and what was installed."""

import functools
import importlib.metadata
import logging
import mmap
import os
import platform
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib
import numpy as np
from jax._src import xla_bridge  # the one place that knows whether a backend has started
from jax.experimental import multihost_utils

import imagenet_jax
from imagenet_jax.errors import Stopped, UserError

log = logging.getLogger(__name__)

# Hosts agree on a stop at steps that divide by this; asking at each would stall the devices.
AGREE_STEPS = 10
# Programs that compile faster are not kept. JAX's own second would leave out what one image is answered by.
_LEAST_COMPILE_S = 0.1
# Of jaxlib the first two numbers of the version.
JAXLIB = tuple(map(int, jaxlib.__version__.split('.')[:2]))
_FUSION = 'xla_cpu_experimental_ynn_fusion_type'
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def configure_jax(deterministic: bool, compilation_cache: bool) -> None:
    """Settings that must stand before the first computation.

    Args:
      deterministic: GPU kernels that give the same bits each time, slower. The CPU's always do.
      compilation_cache: keep compiled programs in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR.
    """
    if deterministic:
        _add_xla_flag('xla_gpu_deterministic_ops', 'true')
    guard_half_precision()
    if compilation_cache and not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', str(cache_folder() / 'xla'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', _LEAST_COMPILE_S)


def _add_xla_flag(name: str, value: str) -> None:
    """What the user's XLA_FLAGS say of it stands."""
    flags = os.environ.get('XLA_FLAGS', '')
    if f'--{name}' not in flags:
        os.environ['XLA_FLAGS'] = f'{flags} --{name}={value}'.strip()


@functools.cache
def guard_half_precision() -> None:
    """Keeps XLA for a CPU from kernels that answer NaN in bfloat16; to be called before the first computation.

    From jaxlib 0.11 on it fuses reductions into kernels of its YNN library, and those of some models are wrong: of a
    convolution, BatchNorm and ReLU twice, then the mean.
    """
    if not _may_fuse_reductions() or f'--{_FUSION}' in os.environ.get('XLA_FLAGS', ''):
        return
    if not xla_bridge.backends_are_initialized():
        _add_xla_flag(_FUSION, '-reduce')
    elif jax.default_backend() == 'cpu':
        log.warning('JAX has computed before it could be told to leave out kernels for CPUs that answer NaN in '
                    'bfloat16: make the model before, or set XLA_FLAGS=--%s=-reduce', _FUSION)


def _may_fuse_reductions() -> bool:
    """Whether programs may be for a CPU, by a compiler that does so."""
    return 'cpu' in (jax.config.jax_platforms or 'cpu') and JAXLIB >= (0, 11) and _knows(_FUSION)


def _knows(flag: str) -> bool:
    """Whether XLA has a flag of that name: it ends the process at one that it does not know, and a later version may
    drop one. Looking into the library takes 10 ms."""
    library = max(Path(jaxlib.__file__).parent.glob('*.so'), key=lambda path: path.stat().st_size)
    with library.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        return binary.find(flag.encode()) >= 0


def default_dtype() -> str:
    """What a model computes in that nobody chose a dtype for: bfloat16, on a CPU, which has to emulate it, float32."""
    return 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'


def keep_to_cpu() -> None:
    """For what computes little: an accelerator may be busy, and its memory is not ours to take."""
    jax.config.update('jax_platforms', 'cpu')


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again. Raises UserError: this user has no folder."""
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'imagenet_jax'
    except RuntimeError as error:
        raise UserError('this user has no home folder to keep compiled programs and lists in: set HOME or '
                        'XDG_CACHE_HOME to a folder') from error


class Agreed(NamedTuple):
    """What all hosts do at a step: the signal they stop for, or 0; whether they save; the most news that one has."""
    signal: int
    save: bool
    news: int


class StopSignal:
    """While entered, SIGTERM, SIGHUP and Ctrl-C set a flag instead of ending the process; a second one ends it at once.
    SIGUSR1 asks for a save, after which the run goes on. What nohup ignores stays ignored."""

    def __enter__(self):
        self._number, self._save = 0, False
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                        if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN}
        self._before_save = signal.signal(signal.SIGUSR1, self._note_save)
        return self

    def __exit__(self, *_):
        for number, handler in {**self._before, signal.SIGUSR1: self._before_save}.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        self._number = number
        log.warning('%s: saving after this step; once more ends it at once', signal.Signals(number).name)
        for n, handler in self._before.items():
            signal.signal(n, handler)

    def _note_save(self, number, frame):
        del number, frame
        self._save = True
        log.warning('SIGUSR1: saving after this step, and going on')

    def agreed(self, step: int, news: int = 0) -> Agreed:
        """What all hosts do at this step; several agree at every tenth. A save is asked for once."""
        own = np.int32([self._number, self._save, news])
        if jax.process_count() > 1:
            if step % AGREE_STEPS:
                return Agreed(0, False, 0)
            own = multihost_utils.process_allgather(own).max(0)
        self._save &= not own[1]
        return Agreed(int(own[0]), bool(own[1]), int(own[2]))

    def check(self, step: int) -> None:
        """Raises Stopped where all hosts agree at this step that a signal came: for what may be broken off."""
        agreed = self.agreed(step)
        self._save |= agreed.save  # which the next step is asked for again
        if agreed.signal:
            raise Stopped(agreed.signal)


def versions() -> dict[str, str]:
    """Of what computes: Python, this package, those it rests on."""
    return {'python': platform.python_version(), 'imagenet_jax': imagenet_jax.__version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def describe() -> dict:
    """Versions, git revision and devices, for the run's record."""
    return {'versions': versions(), 'git_revision': _git_revision(), 'device_kind': jax.devices()[0].device_kind,
            'devices': jax.device_count(), 'hosts': jax.process_count()}


def _git_revision() -> str:
    """Of the repository that has this very file, '' where none has; -dirty where it was changed.

    An installed package may lie in a repository too, in the environment of another project: that one says nothing.
    """
    git = partial(subprocess.run, text=True, cwd=Path(__file__).parent, capture_output=True, check=True)
    try:
        git(['git', 'ls-files', '--error-unmatch', Path(__file__).name])
        return git(['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''
