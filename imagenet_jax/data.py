"""The section `data` of a config, read: which splits of what, who decodes, and what unreadable samples do."""

import dataclasses
import itertools
import logging
from collections.abc import Mapping

from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.input_pipeline import BadSamples
from imagenet_jax.sources.holdout import check_fraction
from imagenet_jax.workers import Workers, cores

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """configs/common.py, section data, says what each option means; the layout's own are in `options`."""
    format: str
    path: str
    train_split: str
    eval_split: str
    holdout: float
    workers: Workers
    on_error: str
    max_bad_fraction: float
    options: Mapping

    def open(self, split: str, num_classes: int | None, size: int) -> sources.Source:
        """Opens one split; see `sources.create`."""
        return sources.create(self.format, self.path, split, num_classes, size, holdout=self.holdout,
                              train_split=self.train_split, eval_split=self.eval_split, **self.options)

    def open_both(self, num_classes: int, size: int) -> tuple[sources.Source, sources.Source]:
        """Opens the splits to train and to evaluate on. Raises UserError where their classes differ."""
        train, test = (self.open(split, num_classes, size) for split in (self.train_split, self.eval_split))
        if train.class_names != test.class_names:
            raise UserError(f'splits {self.train_split} and {self.eval_split} of {self.path} have other classes: '
                            f'{_difference(self.train_split, train, self.eval_split, test)}')
        log.info('%s: %d images to train on, %d to evaluate on; %d outputs for %s classes', self.path or self.format,
                 len(train), len(test), num_classes, len(train.class_names) or 'unnamed')
        return train, test

    def fingerprint(self, train: sources.Source, test: sources.Source) -> dict[str, int]:
        """By which hosts see whether they have the same data."""
        return {f'{what} of split {split!r}': value
                for split, source in ((self.train_split, train), (self.eval_split, test))
                for what, value in source.fingerprint().items()}

    def bad_samples(self, source: sources.Source) -> BadSamples:
        """What counts a source's unreadable samples."""
        return BadSamples(source, self.on_error, self.max_bad_fraction)

    @property
    def faster(self) -> str:
        """What to change where images come too slowly."""
        free = cores()
        packed = self.format == 'array_record'
        smaller = 'smaller, with --resize of `convert`' if packed else 'packed and shrunk by `convert`'
        if self.workers.count < free:
            return f'raise config.data.{"processes" if self.workers.processes else "threads"} to {free}, the cores ' \
                   f'there are, or have images {smaller}'
        processes = '' if self.workers.processes else f'try config.data.processes={free} instead of threads, or '
        return f'{processes}have images {smaller}: all {free} cores decode already'


def _difference(name: str, source: sources.Source, other_name: str, other: sources.Source) -> str:
    """Which classes one has and the other lacks or, where they have the same ones, which are numbered otherwise."""
    ours, theirs = source.class_names, other.class_names
    lacks = [f'{split} lacks {", ".join(map(repr, names[:5]))}' + (f' and {len(names) - 5} more' if names[5:] else '')
             for split, names in ((other_name, [n for n in ours if n not in set(theirs)]),
                                  (name, [n for n in theirs if n not in set(ours)])) if names]
    pairs = itertools.zip_longest(ours, theirs)
    return '; '.join(lacks) or ', '.join([f'{a!r} against {b!r}' for a, b in pairs if a != b][:5])


def read(*, format: str, path: str = '', train_split: str = 'train', eval_split: str = 'val', holdout: float = 0.0,
         processes: int = 0, threads: int = 0, on_error: str = 'skip', max_bad_fraction: float = 0.1,
         **options) -> Data:
    """Reads the section; to be called by `options.apply`. Raises UserError."""
    check_fraction(holdout)
    return Data(format=format, path=path, train_split=train_split, eval_split=eval_split, holdout=holdout,
                workers=Workers(processes, threads), on_error=on_error, max_bad_fraction=max_bad_fraction,
                options=options)
