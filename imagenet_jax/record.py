"""config.json: what a run was asked to do and on what, written at its start and held against each later start.

What runs of earlier versions wrote is read too: `upgrade` makes today's form of their config, `upgrade_state` of their
checkpoints' arrays.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagenet_jax.errors import UserError, expanded, replacing, writing

log = logging.getLogger(__name__)

# Of the 4,096 bytes that Linux takes of a path, what is left by the longest that Orbax makes below it.
_LONGEST = 3840
# A later start may not change these: they decide the arrays, which images step t consumes, or what a score means.
_FIXED = ('model', 'loss.name', 'seed', 'batch_size', 'augment.size', 'augment.repeats', 'data.train_split',
          'data.holdout', 'optimizer.name', 'run.train_examples', 'run.class_names')
# But this may: a run that ran out of memory goes on with it, on the same arrays.
_CHANGEABLE = ('model.remat',)
# What differs between two starts of the same run without meaning anything.
_FREE = ('resume_unchecked', 'misclassified', 'parameter_table', 'profile_steps', 'distributed', 'run.versions',
         'run.git_revision', 'run.device_kind', 'run.devices', 'run.hosts', 'run.parameters', 'run.multiply_adds',
         'run.class_words',
         'run.finished')
# What is a section wherever it is; `loss` was a name in version 0.1.
_SECTIONS = ('model', 'data', 'augment', 'policy', 'eval', 'normalize', 'erase', 'mix', 'distill', 'optimizer',
             'schedule', 'lookahead', 'distributed', 'run')


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'model.name': 'resnet50', ...}"""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f'{prefix}{name}.')
        else:
            flat[prefix + name] = value
    return flat


def of_all_hosts(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's options by name, but for those that each host may have its own of."""
    config = getattr(config, 'to_dict', lambda: config)()  # sections of a ConfigDict are no Mapping
    flat = flatten({name: value for name, value in config.items() if name not in ('distributed', 'message')})
    return {f'config.{name}': value for name, value in flat.items() if name not in ('data.threads', 'data.processes')}


def make_folder(workdir: Path) -> Path:
    """Makes a run's folder where it is missing; ~ is the user's own.

    Raises:
      UserError: there is no writing into it, or its path is one that Orbax would save to and not find again.
    """
    workdir = expanded(workdir)
    refuse_patterns(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the workdir {workdir}: {error.strerror}') from error
    if not os.access(workdir, os.W_OK):
        raise UserError(f'cannot write into the workdir {workdir}')
    return workdir


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """While entered, no other process trains in a run's folder.

    The kernel lets go of the lock with the process that holds it, however that ends. On a network disk it holds between
    hosts where the disk passes locks on (NFS, Lustre mounted with flock, CephFS); one that has none is told of.

    Raises:
      UserError: another process does, and which; or the lock's file cannot be written.
    """
    path = workdir / '.lock'
    with writing(path):
        file = path.open('a+')  # not 'w': the owner's name would be gone before it is known whether there is one
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or 'which one is not told'
            raise UserError(f'another process trains in {workdir}: {owner}; give each run a --workdir of its own, or '
                            'end that one first') from None
        except OSError as error:
            log.warning('%s cannot be locked (%s): nothing keeps a second process from training in it', workdir,
                        error.strerror)
        with writing(path):
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
            file.flush()
        yield


def refuse_patterns(folder: Path) -> None:
    """Raises UserError where Orbax would take the path of a folder for a pattern: it saves there, and finds nothing.

    And where a path is no text, which Orbax and TensorFlow do not take, or so long that what is saved has no room.
    """
    path = str(folder.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f'{str(folder)!a} is no text (UTF-8): choose another name') from None
    if len(os.fsencode(path)) > _LONGEST:
        raise UserError(f'the path of {folder.name[:40]}... has {len(os.fsencode(path))} bytes, and {_LONGEST} leave '
                        'room for what is saved there: choose a shorter one')
    if found := sorted(set('[]*?\\') & set(path)):
        raise UserError(f'{folder} has {" and ".join(found)} in its path, by which Orbax would look for other files '
                        'than it saved: choose another name')


def write(workdir: Path, record: dict) -> None:
    """Writes config.json whole or not at all. Raises UserError."""
    with replacing(Path(workdir) / 'config.json') as file:
        file.write_text(json.dumps(record, indent=2) + '\n')


def finish(workdir: Path, entry: dict) -> None:
    """Notes in config.json that the run came to its end; the next start writes it without the note, until its own."""
    write(workdir, entry | {'run': entry['run'] | {'finished': True}})


def planned_steps(steps: int, epochs: float, examples: int, batch_size: int) -> int:
    """Updates of a run: config.steps or, where that is 0, those of so many epochs."""
    return steps or max(1, round(epochs * examples / batch_size))


def read(workdir: Path) -> dict | None:
    """The record of an earlier start, in today's form; None where there was none.

    Raises:
      UserError: it cannot be read, it is damaged, or of a model that cannot be what it was.
    """
    path = Path(workdir) / 'config.json'
    try:
        entry = json.loads(path.read_text())
        flatten(entry if isinstance(entry, dict) else {})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except RecursionError:
        raise _damaged(path, 'it is nested too deep') from None
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(entry, dict):
        raise _damaged(path, f'it has no options, it is {json.dumps(entry)[:40]}')
    if wrong := [name for name in _SECTIONS if not isinstance(entry.get(name, {}), dict)]:
        raise _damaged(path, f'{wrong[0]} is no section')
    return upgrade(entry)


def _damaged(path: Path, why) -> UserError:
    return UserError(f'{path} is damaged ({why}); mend it, or move it away, and a run goes on without it with '
                     '--config.resume_unchecked=True')


# Of earlier configs: defaults of version 0.1 that are unset now, with the reader's own the same; and what they did not
# have.
_UNSET_NOW = {'augment': {'scale': [0.08, 1.0], 'ratio': [3 / 4, 4 / 3], 'pad': 4},
              'optimizer': {'momentum': 0.9, 'nesterov': True},
              'schedule': {'floor': 0.0, 'milestones': [], 'factor': 0.1}}
_NEW = {'policy': {'name': 'none'}, 'erase': {'name': 'none'}, 'mix': {'mixup': 0.0},
        'lookahead': {'steps': 0, 'alpha': 0.5}, 'stop_after': 0}


def upgrade(entry: dict) -> dict:
    """A config.json of an earlier version in today's form: in 0.1 `loss` was a name, label_smoothing at the top level.

    Raises:
      UserError: a model that cannot be what it was.
    """
    if 'model' not in entry:
        return entry
    if isinstance(entry.get('loss'), dict):
        return _NEW | entry
    name = entry['model'].get('name')
    # By the version, since an import has no `loss` in any.
    of_0_1 = str(entry.get('run', {}).get('versions', {}).get('imagenet_jax', '')).startswith('0.1.')
    if name in ('seresnet18', 'seresnet34') and of_0_1:
        raise UserError(f'{name} of version 0.1 was 4 wide in the hidden layers of its first squeeze and excitations, '
                        'and is 8 wide since, as in timm: use that folder with version 0.1, or train anew')
    entry = dict(entry)
    entry['loss'] = {'name': entry.get('loss', 'softmax'), 'smoothing': entry.pop('label_smoothing', 0.0)}
    for section, defaults in _UNSET_NOW.items():
        if section in entry:
            entry[section] = {name: None if name in defaults and value == defaults[name] else value
                              for name, value in entry[section].items()}
    return _NEW | entry


def upgrade_state(name: str) -> str:
    """Today's name of an array in a checkpoint of version 0.1, whose optimizer numbered its parts and the updates."""
    name = re.sub(r'^opt_state/\d+/count$', 'updates', name)
    return re.sub(r'^opt_state/\d+/trace/', 'opt_state/momentum/trace/', name)


def check_resumable(workdir: Path, record: dict) -> None:
    """Holds this start's record against the earlier one's: refuses a change of model or data, logs any other.

    Raises:
      UserError: names every change that is refused; or there are checkpoints and no record, which goes on only where
        config.resume_unchecked says so.
    """
    earlier = read(workdir)
    if earlier is None:
        _refuse_unchecked(workdir, record.get('resume_unchecked', False))
        return
    before, now = _resolved(earlier), _resolved(json.loads(json.dumps(record)))
    changes = {name: (before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())
               if before.get(name) != now.get(name) and not _under(name, _FREE)}
    refused = [f'  config.{name}: was {old!r}, now {new!r}' for name, (old, new) in changes.items()
               if _under(name, _FIXED) and not _under(name, _CHANGEABLE)]
    if refused:
        raise UserError('\n'.join([f'{workdir} holds a run that this config cannot go on with:', *refused,
                                   'use another --workdir, or the earlier values']))
    for name, (old, new) in changes.items():
        log.info('resuming with config.%s=%r, which was %r', name, new, old)
    if 'run.order' in changes:
        log.warning('an earlier version shuffled so many images otherwise: of the epoch that was begun some come twice '
                    'and others not at all; each epoch after it has all of them once')
    devices = before.get('run.devices'), now.get('run.devices')
    if devices[0] != devices[1] and now.get('model.norm') == 'batch':
        log.info("resuming on %s devices, which were %s: each takes BatchNorm's statistics of its share of a batch, "
                 'which is another now (config.model.norm)', devices[1], devices[0])


def _refuse_unchecked(workdir: Path, asked: bool) -> None:
    folder = workdir / 'checkpoints'
    if not any(path.name.isdigit() for path in (folder.iterdir() if folder.is_dir() else ())):
        return
    if not asked:
        raise UserError(f'{workdir} has checkpoints but no config.json to hold this config against: put it back, use '
                        'another --workdir, or go on without it with --config.resume_unchecked=True')
    log.warning('%s has no config.json: what this run was asked before is not known, and nothing is checked', workdir)


def _resolved(entry: dict) -> dict[str, Any]:
    """Flat, and with the dtype that was computed in where the config names none."""
    flat = flatten(entry)
    flat['data.holdout'] = flat.get('data.holdout') or None  # 0 is none, as unset is
    dtype = flat.pop('run.dtype', None)
    return flat | ({'model.dtype': flat.get('model.dtype') or dtype} if dtype else {})


def _under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + '.') for prefix in prefixes)
