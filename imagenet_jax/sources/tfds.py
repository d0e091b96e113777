"""Data sets that TensorFlow Datasets prepared as array_record, read without TensorFlow.

    tfds build cifar10 --file_format=array_record --data_dir=data/tfds

    data/tfds/cifar10/3.0.2/{dataset_info,features}.json
    data/tfds/cifar10/3.0.2/cifar10-train.array_record-00000-of-00001

The split is in TFDS's own language: 'train', 'validation', 'train[:90%]', 'train+test'.
"""

import difflib
import logging
import os
import shlex
import sys
from pathlib import Path

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.sources import kept
from imagenet_jax.sources.base import Source

log = logging.getLogger(__name__)

_FORMAT = 'array_record'
# Shard by shard, beside what is there, with TFDS's own reader and writer: `tfds convert_format` does the same, but
# does not start without Apache Beam.
_CONVERSION = '''import json, pathlib, sys, tensorflow_datasets.core.file_adapters as f; d = pathlib.Path(sys.argv[1]);
[f.ArrayRecordFileAdapter.write_examples(p.with_name(p.name.replace('.tfrecord-', '.array_record-')),
enumerate(r.numpy() for r in f.TfRecordFileAdapter.make_tf_data(str(p)))) for p in d.glob('*.tfrecord-*')];
i = d / 'dataset_info.json'; j = json.loads(i.read_text());
j.setdefault('alternativeFileFormats', []).append('array_record'); i.write_text(json.dumps(j, indent=2))'''


class Tfds(Source):
    """Records in stored order. Opening reads every record once for its label; the labels are kept in the user's cache.

    Args:
      path: TFDS's data_dir; '' for its own default, $TFDS_DATA_DIR or ~/tensorflow_datasets.
      split: in TFDS's language.
      dataset: name[/config][:version]; the newest version that is there unless it says one.
    """
    on_disk = False

    def __init__(self, path: str, split: str, dataset: str = ''):
        if not dataset:
            raise UserError('data.format=tfds needs data.dataset, such as cifar10 or imagenet2012:5.1.0')
        builder = _builder(path, dataset)
        self._image, self._label = _features(builder.info)
        self.class_names = tuple(builder.info.features[self._label].names)
        try:
            self._records = builder.as_data_source(split, decoders=_leave_encoded(builder.info.features),
                                                   file_format=_FORMAT)
            files = builder.info.splits[split].file_instructions
        except (ValueError, KeyError) as error:
            there = ', '.join(f'{name} ({info.num_examples})' for name, info in builder.info.splits.items())
            raise UserError(f'{dataset} has no split {split!r}: {_line(error)}. Its splits: {there}') from error
        self._files = [(Path(file.filename).name, file.skip) for file in files]
        self._starts = np.cumsum([0, *(file.take for file in files)])[:-1]
        self.labels = self._cached_labels(files)

    def image(self, index):
        return self._read(index)[self._image]

    def key(self, index):
        file = int(np.searchsorted(self._starts, index, side='right')) - 1
        name, skip = self._files[file]
        return f'{name}:{skip + index - int(self._starts[file])}'

    def _read(self, index: int) -> dict:
        try:
            return self._records[index]
        except Exception as error:  # checksums raise RuntimeError, damaged protocol buffers whatever they like
            raise OSError(f'{type(error).__name__}: {error}') from error

    def _cached_labels(self, files) -> np.ndarray:
        """Labels lie inside the records, so that reading them is reading the images: minutes for ImageNet, once."""
        stats = [(file.filename, file.skip, file.take, kept.stamp(file.filename)) for file in files]
        return kept.array(stats, self._read_labels)

    def _read_labels(self) -> np.ndarray:
        count = len(self._records)
        if count > 100_000:
            log.info('reading the labels of %d records, once', count)
        labels = np.empty(count, np.int32)
        for index in range(count):
            try:
                labels[index] = self._read(index)[self._label]
            except OSError as error:
                raise UserError(f'record {self.key(index)} cannot be read: {error}; prepare the data set again') \
                    from error
        return labels


def _builder(path: str, dataset: str):
    """What TFDS knows of a prepared data set, from its files alone."""
    import tensorflow_datasets as tfds  # a second that no other source should pay
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    root = Path(path or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
    if not root.is_dir():
        raise UserError(f"no folder {root}; data.path is TFDS's data_dir, '' for its default")
    try:
        builder = builder_from_files(dataset, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        raise _not_prepared(root, dataset, tfds.list_builders(with_community_datasets=False)) from error
    except Exception as error:  # a malformed name, or torn metadata
        raise UserError(f'{dataset!r} cannot be opened in {root}: {_line(error)}. data.dataset is '
                        'name[/config][:version]') from error
    formats = {format.value for format in builder.info.available_file_formats()}
    if formats == {'tfrecord'}:
        code = ' '.join(_CONVERSION.split('\n'))
        raise UserError(f'{builder.data_path} holds tfrecord, in which no record can be found without reading all '
                        f'before. This puts {_FORMAT} beside it, once and with TensorFlow: '
                        f'{shlex.quote(sys.executable)} -c "{code}" {shlex.quote(str(builder.data_path))}')
    if _FORMAT not in formats:
        raise UserError(f'{builder.data_path} holds {" and ".join(sorted(formats))}, not {_FORMAT}; prepare it in '
                        f'another folder: {_command(dataset, "DIR")}')
    return builder


def _not_prepared(root: Path, dataset: str, known: list[str]) -> UserError:
    name = dataset.split(':')[0].split('/')[0]
    features = [*root.glob('*/*/features.json'), *root.glob('*/*/*/features.json')]
    there = sorted(':'.join(str(file.parent.relative_to(root)).rsplit('/', 1)) for file in features)
    near = difflib.get_close_matches(name, {*known, *(entry.split(':')[0].split('/')[0] for entry in there)})
    if name in near:
        what = f'to prepare it: {_command(dataset, root)}'
    else:
        what = f'did you mean {" or ".join(near)}?' if near else 'TFDS has none of that name either'
    return UserError(f'{dataset!r} is not prepared in {root}, which holds {", ".join(there[:10]) or "none"}; {what}')


def _command(dataset: str, data_dir: Path | str) -> str:
    return f'tfds build {dataset} --file_format={_FORMAT} --data_dir={data_dir}'


def _features(info) -> tuple[str, str]:
    """Names of the image and of the label: the supervised pair where there is one, else `image` and `label`."""
    from tensorflow_datasets import features as kinds
    pair = (info.supervised_keys or ())[:2]
    image, label = pair if len(pair) == 2 and all(isinstance(name, str) for name in pair) else ('image', 'label')
    found = dict(info.features.items())
    if not (isinstance(found.get(image), kinds.Image) and np.issubdtype(found[image].np_dtype, np.integer)
            and isinstance(found.get(label), kinds.ClassLabel)):
        raise UserError(f'{info.full_name} is no data set of images with one class each: its features are '
                        f'{", ".join(f"{name} ({type(kind).__name__})" for name, kind in found.items())}')
    return image, label


def _leave_encoded(features) -> dict:
    """Every image, masks and other pictures too, stays as it is stored: it is decoded later, or never."""
    from tensorflow_datasets import decode
    from tensorflow_datasets import features as kinds
    return {name: decode.SkipDecoding() for name, kind in features.items() if isinstance(kind, kinds.Image)}


def _line(error: Exception) -> str:
    return str(error).split('\n')[0].rstrip('.')  # TFDS explains on pages
