"""What is packed comes back as it was."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_convert import ROWS, reopened
from fixtures_images import jpeg, scene
from fixtures_layouts import cifar100, database, voc

from imagenet_jax import input_pipeline, sources
from imagenet_jax.convert import Plan, convert
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.sources import array_record


def test_the_same_images_keys_labels_and_names_come_back(tree, packed):
    before, after = sources.create('folder', str(tree), 'train'), reopened(packed)
    assert after.class_names == before.class_names
    assert after.labels.dtype == before.labels.dtype and after.labels.tolist() == before.labels.tolist()
    for i in (*range(ROWS), 7, 0):
        assert after[i] == before[i]
    assert {p.name for p in packed.iterdir()} == {
        'train.json', 'train.index.npz', *(f'train-{n:05d}-of-00004.array_record' for n in range(4))}


def test_more_shards_than_may_be_open(packed, monkeypatch):
    expected = [reopened(packed).image(i) for i in range(ROWS)]
    monkeypatch.setattr(array_record, 'OPEN_SHARDS', 2)
    source = reopened(packed)
    for i in (0, 39, 20, 10, 0, 30, 21, 39):
        assert source.image(i) == expected[i]
        assert len(source._readers) <= 2


def test_it_travels_to_workers(packed):
    source = reopened(packed)
    image = source.image(3)
    assert pickle.loads(pickle.dumps(source)).image(3) == image


def test_threads_may_read_at_once(packed, monkeypatch):
    monkeypatch.setattr(array_record, 'OPEN_SHARDS', 2)  # so that readers come and go meanwhile
    source = reopened(packed)
    expected, order = [source.image(i) for i in range(ROWS)], np.random.default_rng(0).integers(ROWS, size=400).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.image, order)) == [expected[i] for i in order]


@pytest.mark.parametrize('how', [{'threads': 1}, {'threads': 3}, {'processes': 2}])
def test_training_gets_the_same_bytes_from_either_layout(tree, packed, how):
    workers = input_pipeline.Workers(**how)
    batches = [input_pipeline.train_batches(source, TrainView(8), 16, seed=3, start_step=2, workers=workers)
               for source in (sources.create('folder', str(tree), 'train'), reopened(packed))]
    for _ in range(4):
        ours, theirs = map(next, batches)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for stream in batches:
        stream.close()


def photographs(root):
    """VOC's layout with images that can be decoded."""
    voc(root)
    for i, path in enumerate(sorted(root.glob('**/*.jpg'))):
        path.write_bytes(jpeg(i))


@pytest.mark.parametrize(('format', 'make', 'options'), [
    ('voc', photographs, {'labels': 'all'}), ('lmdb', database, {}), ('cifar', cifar100, {'labels': 'coarse'})])
def test_other_layouts_with_their_options(tmp_path, format, make, options):
    make(tmp_path / 'source')
    before = sources.create(format, str(tmp_path / 'source'), 'train', **options)
    manifest = convert(Plan(before, {'format': format, 'options': options}, tmp_path / 'out', 'train'), workers=1)
    after = reopened(tmp_path / 'out')
    assert manifest['made_of']['source'] == {'format': format, 'options': options} and not manifest['skipped']
    assert after.class_names == before.class_names and after.labels.dtype == before.labels.dtype
    np.testing.assert_array_equal(after.labels, before.labels)
    for i in range(len(before)):
        assert after.key(i) == before.key(i)
        np.testing.assert_array_equal(after.image(i), before.image(i))


class Both(sources.Source):
    """Pixels of several classes, under names that are not UTF-8."""
    labels = np.array([[0, 1], [1, np.nan]], np.float32)
    class_names = ('a', 'b')

    def image(self, index):
        return scene(5, 7, index)

    def key(self, index):
        return f'\udcff{index}'


def test_multi_label_and_pixels(tmp_path):
    convert(Plan(Both(), {}, tmp_path, 'train'), workers=1)
    source = sources.ArrayRecord(str(tmp_path), 'train')
    np.testing.assert_array_equal(source.labels, Both.labels)
    np.testing.assert_array_equal(source.image(1), scene(5, 7, 1))
    assert source.key(1) == '\udcff1'


def test_records_are_what_the_docstring_says():
    record = array_record.pack(2**32 - 1, 3, 'a/b.png', 7, b'abc')
    assert record[4 + int.from_bytes(record[:4], 'little'):] == b'abc'
    assert array_record.unpack(record) == (2**32 - 1, 3, 'a/b.png', 7, b'abc')


def test_the_manifest_has_what_is_needed_to_check_it(packed):
    manifest = json.loads((packed / 'train.json').read_text())
    for shard in manifest['shards']:
        assert array_record.sha256(packed / shard['file']) == shard['sha256']
    assert manifest['class_names'] == ['ant', 'bee', 'cat'] and manifest['made_of']['source']['format'] == 'folder'
