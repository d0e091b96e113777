"""Data sets as TensorFlow Datasets prepares them, written with its own writer and read without TensorFlow."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_images import encode, flip_bit, jpeg, scene
from runs import ROOT, environment

from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import decode
from imagenet_jax.sources.tfds import Tfds

tfds = pytest.importorskip('tensorflow_datasets')
NAMES = ('ant', 'bee', 'cat')


def prepare(data_dir, name='tiny', version='1.0.0', config=None, features=None, supervised=('image', 'label'),
            splits=None) -> Path:
    """A prepared data set, three records a shard; the folder it is in."""
    folder = data_dir.joinpath(name, *([config] if config else []), version)
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name=name, version=tfds.core.Version(version), data_dir=str(folder),
                                         module_name='none', config_name=config)
    features = features or {'image': tfds.features.Image(), 'label': tfds.features.ClassLabel(names=NAMES)}
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features),
                                 supervised_keys=supervised)
    splits = splits or {'train': [example(i) for i in range(7)], 'test': [example(i) for i in range(7, 9)]}
    writer = tfds.core.SequentialWriter(info, 3, file_format='array_record')
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()
    return folder


def example(i) -> dict:
    return {'image': io.BytesIO(jpeg(i)), 'label': i % 3}


def create(path, split='train', dataset='tiny', **options):
    return sources.create('tfds', str(path), split, 3, 8, dataset=dataset, **options)


def refused(path, *words, **kwargs):
    with pytest.raises(UserError) as caught:
        create(path, **kwargs)
    for word in words:
        assert str(word) in str(caught.value)
    assert '\n' not in str(caught.value)


# What is read


def test_records_come_encoded_in_stored_order(tmp_path):
    prepare(tmp_path)
    source = create(tmp_path)
    assert source.class_names == NAMES
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and source.labels.dtype == np.int32
    assert [source.image(i) for i in range(7)] == [jpeg(i) for i in range(7)]
    assert [source.key(i) for i in (0, 2, 3, 6)] == [
        f'tiny-train.array_record-{shard}' for shard in ('00000:0', '00000:2', '00001:0', '00002:0')]


@pytest.mark.parametrize(('split', 'numbers'), [
    ('test', [7, 8]), ('train[2:5]', [2, 3, 4]), ('train[:43%]', [0, 1, 2]), ('train[-1:]+test', [6, 7, 8]),
    ('all', list(range(9)))])
def test_splits_in_the_language_of_tfds(tmp_path, split, numbers):
    prepare(tmp_path)
    source = create(tmp_path, split)
    assert [source.image(i) for i in range(len(source))] == [jpeg(i) for i in numbers]
    assert source.labels.tolist() == [i % 3 for i in numbers]
    whole = create(tmp_path, 'all')
    assert [source.key(i) for i in range(len(source))] == [whole.key(i) for i in numbers]


def test_newest_version_unless_another_is_named(tmp_path):
    for version, count in (('1.9.0', 1), ('1.10.0', 2), ('1.2.0', 3)):
        prepare(tmp_path, version=version, splits={'train': [example(i) for i in range(count)]})
    assert [len(create(tmp_path, dataset=name)) for name in ('tiny', 'tiny:1.9.0', 'tiny:1.2.*')] == [2, 1, 3]


def test_configs(tmp_path):
    prepare(tmp_path, config='small', splits={'train': [example(5)]})
    prepare(tmp_path, config='large', splits={'train': [example(4)]})
    assert create(tmp_path, dataset='tiny/small').image(0) == jpeg(5)
    assert create(tmp_path, dataset='tiny/large:1.0.0').image(0) == jpeg(4)
    refused(tmp_path, "'tiny/huge' is not prepared", 'tiny/large:1.0.0, tiny/small:1.0.0', dataset='tiny/huge')


def test_other_features_are_left_alone(tmp_path):
    """A mask that no decoder takes stays in the record."""
    features = {'label': tfds.features.ClassLabel(num_classes=3), 'photo': tfds.features.Image(shape=(None, None, 1)),
                'mask': tfds.features.Image(), 'name': tfds.features.Text()}
    png = encode(scene(4, 5)[..., 0], 'PNG')
    rows = [{'label': 2, 'photo': io.BytesIO(png), 'mask': io.BytesIO(b'no image'), 'name': 'x'}]
    prepare(tmp_path, features=features, supervised=('photo', 'label'), splits={'train': rows})
    source = create(tmp_path)
    assert source[0] == {'image': png, 'label': 2, 'key': 'tiny-train.array_record-00000:0'}
    assert source.class_names == ('0', '1', '2')


def test_pair_goes_by_name_where_none_is_declared(tmp_path):
    prepare(tmp_path, supervised=None)
    assert create(tmp_path).image(3) == jpeg(3)


def test_empty_path_is_the_default_of_tfds(tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    assert len(create('')) == 7


def test_pickles_small_and_reads_after_it(tmp_path):
    prepare(tmp_path)
    source = create(tmp_path)
    source.image(1)
    data = pickle.dumps(source)
    assert len(data) < 20_000 and pickle.loads(data).image(4) == jpeg(4)


def test_labels_are_kept(tmp_path, cache, monkeypatch):
    prepare(tmp_path)
    labels = create(tmp_path).labels
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Tfds, '_read_labels', lambda self: pytest.fail('read again'))
        np.testing.assert_array_equal(create(tmp_path).labels, labels)
    assert create(tmp_path, 'train[1:3]').labels.tolist() == [1, 2]


def test_labels_of_other_files_are_read_anew(tmp_path):
    folder = prepare(tmp_path)
    create(tmp_path)
    other = prepare(tmp_path / 'other', splits={'train': [example(i) for i in range(6, -1, -1)]})
    for file in other.glob('*train*'):
        os.replace(file, folder / file.name)
    assert create(tmp_path).labels.tolist() == [0, 2, 1, 0, 2, 1, 0]


def test_torn_cache_is_made_again(tmp_path, cache):
    prepare(tmp_path)
    create(tmp_path)
    kept, = cache.iterdir()
    for torn in (b'', kept.read_bytes()[:-3]):
        kept.write_bytes(torn)
        assert create(tmp_path).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_cache_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch, caplog):
    prepare(tmp_path)
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert len(create(tmp_path)) == 7
    assert 'labels are not kept' in caplog.text


# What is refused


def test_data_set_has_to_be_named(tmp_path):
    refused(tmp_path, 'data.format=tfds needs data.dataset', dataset='')


def test_missing_data_set_says_what_is_there_and_how_to_prepare_it(tmp_path):
    prepare(tmp_path)
    build = f'tfds build cifar10:3.0.2 --file_format=array_record --data_dir={tmp_path}'
    refused(tmp_path, "'cifar10:3.0.2' is not prepared", 'holds tiny:1.0.0', build, dataset='cifar10:3.0.2')
    refused(tmp_path, 'tfds build tiny:2.0.0', dataset='tiny:2.0.0')
    refused(tmp_path, 'did you mean tiny?', dataset='tinny')
    refused(tmp_path, 'did you mean cifar10', dataset='cifar1O')
    refused(tmp_path, 'TFDS has none of that name either', dataset='qqqq')
    refused(tmp_path, "'a b' cannot be opened", 'name[/config][:version]', dataset='a b')
    refused(tmp_path / 'none', f'no folder {tmp_path}/none')


def test_other_file_formats_are_refused(tmp_path):
    folder = prepare(tmp_path)
    info = folder / 'dataset_info.json'
    text = info.read_text()
    for new, command in (('tfrecord', f'" {folder}'), ('riegeli', 'tfds build tiny')):
        info.write_text(text.replace('"array_record"', f'"{new}"'))
        refused(tmp_path, folder, f'holds {new}', 'array_record', command)


@pytest.mark.parametrize('split', ['val', 'train[', 'train[:200%]', 'train[:0]', 'train[100:]', ''])
def test_unknown_split_lists_those_there(tmp_path, split):
    prepare(tmp_path)
    refused(tmp_path, repr(split), 'train (7), test (2)', split=split)


@pytest.mark.parametrize(('features', 'row', 'dtype'), [
    ({'image': tfds.features.Image(), 'label': np.int64}, example(1), 'uint8'),
    ({'image': tfds.features.Image(shape=(None, None, 1)), 'label': tfds.features.ClassLabel(names=NAMES)}, example(1),
     'float32'),
    ({'pixels': np.float32, 'label': tfds.features.ClassLabel(names=NAMES)}, {'pixels': 0.5, 'label': 1}, 'uint8')],
    ids=['number', 'float-image', 'no-image'])
def test_other_kinds_of_data_are_refused(tmp_path, features, row, dtype):
    stored = prepare(tmp_path, features=features, supervised=None, splits={'train': [row]}) / 'features.json'
    stored.write_text(stored.read_text().replace('"uint8"', f'"{dtype}"'))
    refused(tmp_path, 'no data set of images with one class each', 'label (')


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
def test_torn_metadata_is_refused(tmp_path, file):
    folder = prepare(tmp_path)
    (folder / file).write_text((folder / file).read_text()[:40])
    refused(tmp_path, "'tiny' cannot be opened in")


@pytest.mark.parametrize('damage', [lambda file, data: file.write_bytes(data[:1000]), lambda file, data: file.unlink(),
                                    lambda file, data: file.write_bytes(flip_bit(data, 100))],
                         ids=['torn', 'gone', 'flipped'])
def test_damaged_records(tmp_path, damage):
    """Found at the first opening; in a data set whose labels are known, a bad sample when its turn comes."""
    shard = prepare(tmp_path) / 'tiny-train.array_record-00001'
    opened = pickle.loads(pickle.dumps(create(tmp_path)))  # no file is open yet
    damage(shard, shard.read_bytes())
    refused(tmp_path, 'tiny-train.array_record-00001:0 cannot be read')
    with pytest.raises(OSError, match='RuntimeError'):
        opened.image(3)
    assert opened.image(2) == jpeg(2)


def test_training_batches_without_tensorflow(tmp_path):
    prepare(tmp_path, splits={'train': [example(i) for i in range(12)]})
    script = tmp_path / 'script.py'
    script.write_text(f"""
import contextlib, sys
from imagenet_jax import input_pipeline, sources
from imagenet_jax.images.train_view import TrainView
if __name__ == '__main__':
    source = sources.create('tfds', {str(tmp_path)!r}, 'train', 3, 8, dataset='tiny')
    sums = []
    for processes in (0, 1):
        workers = input_pipeline.Workers(processes)
        with contextlib.closing(input_pipeline.train_batches(source, TrainView(8), 4, 0, 0, workers)) as batches:
            batch = next(batches)
            assert batch['bad'].max() == -1 and (batch['label'] == batch['index'] % 3).all()
            sums.append(batch['image'].sum())
    assert sums[0] == sums[1] > 0
    assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules
    print('done')
""")
    (tmp_path / 'block').mkdir()  # workers too: there is no TensorFlow to import
    (tmp_path / 'block' / 'tensorflow.py').write_text("raise ImportError('not here')")
    path = {'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}/block'}
    done = subprocess.run([sys.executable, script], cwd=ROOT, text=True, capture_output=True, env=environment() | path)
    assert done.stdout == 'done\n', done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord'])
def test_what_a_builder_prepares(tmp_path, file_format):
    """The long way, which `tfds build` takes; tfrecord is converted by the command in the message. With TensorFlow."""
    pytest.importorskip('tensorflow')
    script = tmp_path / 'script.py'
    script.write_text(f"""
import numpy as np
import tensorflow_datasets as tfds

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.2.3')

    def _info(self):
        features = {{'image': tfds.features.Image(), 'label': tfds.features.ClassLabel(names={NAMES!r})}}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {{'train': self._generate_examples()}}

    def _generate_examples(self):
        yield from ((i, {{'image': np.full((4, 5, 3), i, np.uint8), 'label': i % 3}}) for i in range(9))

Tiny(data_dir={str(tmp_path)!r}, file_format={file_format!r}).download_and_prepare()
""")
    subprocess.run([sys.executable, str(script)], env=environment(), capture_output=True, check=True)
    if file_format == 'tfrecord':
        with pytest.raises(UserError) as caught:
            create(tmp_path)
        subprocess.run(str(caught.value).partition('TensorFlow: ')[2], shell=True, env=environment(), check=True)
    source = create(tmp_path)
    pixels = [int(decode(source.image(i)).max()) for i in range(9)]  # TFDS shuffles what it writes
    assert sorted(pixels) == list(range(9)) and source.labels.tolist() == [value % 3 for value in pixels]
