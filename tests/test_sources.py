"""Layouts on disk: what is read from good ones, and what bad ones get."""

import itertools
import logging
import os
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_images import class_tree, encode, flip_bit, image_folder, jpeg, parquet_file, scene
from fixtures_layouts import LAYOUTS, text

from imagenet_jax import sources
from imagenet_jax.errors import UserError
from imagenet_jax.images.decode import DecodeError, decode
from imagenet_jax.sources import parquet as parquet_layout

NAMES = ('ant', 'bee', 'cat')


def create(format, path, split='train', num_classes=3, **options):
    return sources.create(format, str(path), split, num_classes, 8, **options)


def refused(*words, format='folder', path='', **kwargs):
    """Asserts a UserError that contains every word."""
    with pytest.raises(UserError) as caught:
        create(format, path, **kwargs)
    for word in words:
        assert str(word) in str(caught.value)


# One check for all layouts.

def test_unknown_format_suggests_the_nearest():
    refused('data.format', "'foldr'", 'did you mean folder', format='foldr')
    elsewhere = {'array_record', 'ilsvrc2012', 'tfds'}  # have test files of their own
    assert set(sources.names()) == {*LAYOUTS, *elsewhere, 'digits', 'synthetic'}


@pytest.mark.parametrize('format', [*LAYOUTS, 'digits', 'synthetic'])
def test_unknown_option_is_refused(tmp_path, format):
    path = LAYOUTS[format](tmp_path) if format in LAYOUTS else ''
    refused('num_exmples', 'config.data', format=format, path=path, num_exmples=3)


EXPECTED = {'folder': '<root>/<split>/<class>/<image>', 'parquet': 'train-*.parquet', 'flat': '_flatten',
            'list': 'train.txt', 'lmdb': 'train.lmdb', 'cifar': 'cifar-100-python', 'voc': 'ImageSets/Main/train.txt'}


@pytest.mark.parametrize('format', LAYOUTS)
def test_missing_path_is_named_with_what_was_expected(tmp_path, format):
    refused(tmp_path / 'nowhere', EXPECTED[format], format=format, path=tmp_path / 'nowhere')
    refused('data.path', format=format, path='')


@pytest.mark.parametrize('format', LAYOUTS)
def test_path_to_a_file_is_refused(tmp_path, format):
    (tmp_path / 'file').write_text('')
    refused(tmp_path / 'file', format=format, path=tmp_path / 'file')


@pytest.mark.parametrize('format', LAYOUTS)
def test_every_layout_answers_alike_also_in_a_worker(tmp_path, format):
    source = create(format, LAYOUTS[format](tmp_path), num_classes=20)
    data = pickle.dumps(source)
    again = pickle.loads(data)
    assert len(source) and source.labels.shape == (len(source),) and source.labels.dtype == np.int32
    assert len({source.key(i) for i in range(len(source))}) == len(source)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(again.__getitem__, range(len(source))))
    for i, row in enumerate(rows):
        assert (row['label'], row['key']) == (source.labels[i], source.key(i)) and isinstance(row['label'], int)
        np.testing.assert_array_equal(row['image'], source.image(i))
    assert len(pickle.dumps(source)) == len(data) < 4000


def test_missing_split_lists_those_there(tmp_path):
    class_tree(tmp_path / 'tree', split='val')
    refused(tmp_path / 'tree' / 'train', 'val', path=tmp_path / 'tree')
    parquet_file(tmp_path / 'hub' / 'test-00000-of-00001.parquet', [jpeg()], [0])
    refused(tmp_path / 'hub', 'test-00000-of-00001.parquet', format='parquet', path=tmp_path / 'hub')


def test_empty_split_is_refused(tmp_path):
    (tmp_path / 'tree' / 'train').mkdir(parents=True)
    refused(tmp_path / 'tree' / 'train', 'no class folders', path=tmp_path / 'tree')
    parquet_file(tmp_path / 'hub' / 'train-0.parquet', [], [])
    refused(tmp_path / 'hub', "'train' is empty", format='parquet', path=tmp_path / 'hub')


def test_class_without_images_is_refused(tmp_path):
    class_tree(tmp_path)
    image_folder(tmp_path, {'train/dog/readme.txt': b'none yet'})
    refused(tmp_path / 'train' / 'dog', 'no image', path=tmp_path, num_classes=4)


def test_labels_out_of_range_are_refused(tmp_path):
    class_tree(tmp_path / 'tree', count=5)
    refused('1 labels', 'outside 0..1', 'the first 2 at cat/002.JPEG', '3 classes', 'config.model.num_classes',
            path=tmp_path / 'tree', num_classes=2)


@pytest.mark.parametrize('label', [-1, 3, 2**31, 2**32 + 1])
def test_stored_labels_out_of_range_are_refused(tmp_path, label):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()] * 2, [0, label])
    refused(tmp_path, label, format='parquet', path=tmp_path)


COPIES = [name for name in LAYOUTS if name != 'list']


@pytest.mark.parametrize('format,other', list(itertools.permutations(COPIES, 2)))
def test_another_format_is_suggested_and_two_are_refused(tmp_path, format, other):
    LAYOUTS[other](tmp_path)
    refused(tmp_path, f'set data.format={other}', format=format, path=tmp_path)
    LAYOUTS[format](tmp_path)
    refused(tmp_path, 'two formats', format, other, format=format, path=tmp_path)


@pytest.mark.parametrize('format', COPIES)
def test_a_list_may_lie_beside_any_format(tmp_path, format):
    LAYOUTS[format](tmp_path)
    alone = len(create(format, tmp_path, num_classes=20))
    text(tmp_path, train='any.JPEG 0\n')
    assert len(create(format, tmp_path, num_classes=20)) == alone
    assert create('list', tmp_path).key(0) == 'any.JPEG'


def test_a_list_alone_is_suggested(tmp_path):
    refused('set data.format=list', format='folder', path=text(tmp_path, train='any.JPEG 0\n'))


# Folders.

def test_folder_numbers_sorted_classes_and_sorts_their_images(tmp_path):
    files = {'val/bee/2.png': b'x', 'val/bee/10.JPG': b'y', 'val/ant/b/deep/er.webp': b'z', 'val/ant/z.jpeg': b'w',
             'val/cat/a.bmp': b'v'}
    source = create('folder', image_folder(tmp_path, files), 'val')
    assert source.class_names == NAMES
    rows = [source[i] for i in range(len(source))]
    assert [(row['key'], row['label'], row['image']) for row in rows] == [
        ('ant/b/deep/er.webp', 0, b'z'), ('ant/z.jpeg', 0, b'w'), ('bee/10.JPG', 1, b'y'), ('bee/2.png', 1, b'x'),
        ('cat/a.bmp', 2, b'v')]
    assert source.labels.dtype == np.int32


def test_folder_without_splits(tmp_path):
    class_tree(tmp_path, split='.')
    assert len(create('folder', tmp_path, '')) == 11


def test_hidden_and_other_files_are_left_out(tmp_path, caplog):
    class_tree(tmp_path)
    image_folder(tmp_path, {
        'train/ant/.000.JPEG': b'', 'train/ant/Thumbs.db': b'', 'train/bee/notes.txt': b'', 'train/bee/noending': b'',
        'train/.cache/x.png': b'', 'train/ant/.ipynb_checkpoints/copy.png': b'', 'train/list.txt': b''})
    with caplog.at_level(logging.WARNING):
        source = create('folder', tmp_path)
    assert len(source) == 11 and source.class_names == NAMES
    assert '4 files that are not images' in caplog.text


def test_loops_of_links_end(tmp_path):
    class_tree(tmp_path)
    (tmp_path / 'train' / 'ant' / 'loop').symlink_to(tmp_path / 'train', target_is_directory=True)
    (tmp_path / 'train' / 'itself').symlink_to('itself')
    source = create('folder', tmp_path)
    assert len(source) == 11 and source.class_names == NAMES


def test_links_to_folders_inside_a_class_are_followed_once(tmp_path):
    class_tree(tmp_path)
    more = image_folder(tmp_path / 'more', {'d.png': b'd', 'deep/e.png': b'e'})
    for name in ('first', 'second'):
        (tmp_path / 'train' / 'ant' / name).symlink_to(more, target_is_directory=True)
    (more / 'deep' / 'up').symlink_to(more, target_is_directory=True)
    (more / 'everything').symlink_to('/', target_is_directory=True)
    source = create('folder', tmp_path)
    assert len(source) == 13
    assert [key for key in map(source.key, range(13)) if key.endswith('.png')] == [
        'ant/first/d.png', 'ant/first/deep/e.png']


def test_a_named_pipe_is_a_bad_sample_and_not_waited_for(tmp_path):
    class_tree(tmp_path)
    os.mkfifo(tmp_path / 'train' / 'ant' / 'zz.jpg')
    source = create('folder', tmp_path)
    index = list(map(source.key, range(12))).index('ant/zz.jpg')
    with pytest.raises(OSError, match='no regular file'):
        source.image(index)


def test_a_label_that_is_no_class_number_is_refused(tmp_path):
    path = LAYOUTS['list'](tmp_path)
    with (path / 'train.txt').open('a') as file:
        file.write(f'{(path / "train.txt").read_text().split()[0]} 2000000000\n')
    with pytest.raises(UserError, match=r'outside 0\.\.999999, the first 2000000000'):
        sources.create('list', str(path), 'train')


def test_a_class_may_be_a_link_to_a_folder(tmp_path):
    class_tree(tmp_path)
    elsewhere = image_folder(tmp_path / 'elsewhere', {'d.png': b'd'})
    (tmp_path / 'train' / 'dog').symlink_to(elsewhere, target_is_directory=True)
    source = create('folder', tmp_path, num_classes=4)
    assert source.class_names == (*NAMES, 'dog') and source[11] == {'image': b'd', 'label': 3, 'key': 'dog/d.png'}


def test_names_beyond_ascii(tmp_path):
    undecodable = os.fsdecode(b'\xff\xfe.jpg')  # not UTF-8, as an old disk may have it
    names = ('Käfer', '犬', 'a b')
    image_folder(tmp_path, {f'train/{name}/{file}': name.encode()
                            for name in names for file in ('ünï 🐝.JPEG', undecodable)})
    source = pickle.loads(pickle.dumps(create('folder', tmp_path)))
    assert source.class_names == tuple(sorted(names))
    assert {source.key(i) for i in range(6)} == {f'{n}/{f}' for n in names for f in ('ünï 🐝.JPEG', undecodable)}
    assert all(source.image(i).decode() == source.key(i).split('/')[0] for i in range(6))


def test_folder_reads_misnamed_images(tmp_path):
    png = encode(scene(6, 7), 'PNG')
    image_folder(tmp_path, {'train/ant/png.JPEG': png, 'train/bee/jpeg.png': jpeg(), 'train/cat/text.JPEG': b'text'})
    source = create('folder', tmp_path)
    np.testing.assert_array_equal(decode(source.image(0)), scene(6, 7))
    assert decode(source.image(1)).shape == (10, 12, 3)
    with pytest.raises(DecodeError):
        decode(source.image(2))


def test_a_file_that_goes_away_is_an_os_error(tmp_path):
    source = create('folder', class_tree(tmp_path))
    (tmp_path / 'train' / 'ant' / '000.JPEG').unlink()
    with pytest.raises(OSError, match='000'):
        source.image(0)


# Parquet.

def hub(tmp_path, **options):
    """Ten images in two files of row groups of two."""
    options = {'names': NAMES, 'row_group_size': 2} | options
    parquet_file(tmp_path / 'train-00000-of-00002.parquet', [jpeg(i) for i in range(5)], [0, 1, 2, 0, 1], **options)
    parquet_file(tmp_path / 'train-00001-of-00002.parquet', [jpeg(i) for i in range(5, 10)], [2] * 5, **options)
    return tmp_path


@pytest.mark.parametrize('folder,options', [('', {}), ('data', {}), ('', {'image': 'img', 'label': 'fine_label'})])
def test_parquet_rows_come_in_file_order(tmp_path, folder, options):
    hub(tmp_path / folder, **options)
    source = create('parquet', tmp_path)
    assert source.class_names == NAMES
    assert source.labels.tolist() == [0, 1, 2, 0, 1] + [2] * 5 and source.labels.dtype == np.int32
    for i in (7, 0, 9, 4, 5, 3, 1, 8, 2, 6):
        assert source[i] == {'image': jpeg(i), 'label': source.labels[i], 'key': source.key(i)}
    assert len({source.key(i) for i in range(10)}) == 10
    assert source.key(4) == 'train-00000-of-00002.parquet:2:0'


def test_every_file_of_a_parquet_split_must_be_there(tmp_path):
    first, second = sorted(hub(tmp_path, names=NAMES).glob('*'))
    parquet_file(tmp_path / 'train-extra-00000-of-00001.parquet', [jpeg(0)], [0], NAMES)  # of a split of its own
    assert len(create('parquet', tmp_path)) == 10 and len(create('parquet', tmp_path, 'train-extra')) == 1
    for number in range(2):
        parquet_file(tmp_path / f'v-2-{number}.parquet', [jpeg(0)], [0], NAMES)
    assert len(create('parquet', tmp_path, 'v-2')) == 2
    (tmp_path / 'data').mkdir()
    there = second.rename(tmp_path / 'data' / second.name)
    assert len(create('parquet', tmp_path)) == 10
    away = there.rename(tmp_path / 'away')
    refused('of the 2 files', '1 are missing', 'by number: 1', format='parquet', path=tmp_path)
    (tmp_path / 'data' / first.name).write_bytes(first.read_bytes())
    refused('same number', first, format='parquet', path=tmp_path)
    away.rename(tmp_path / 'data' / 'train-00001-of-00003.parquet')
    refused('several splits', '[2, 3]', format='parquet', path=tmp_path)


@pytest.mark.parametrize('other', [{'names': NAMES[::-1]}, {'names': None}, {'image': 'img'}, {'label': 'fine_label'}])
def test_the_files_of_a_parquet_split_must_agree(tmp_path, other):
    hub(tmp_path, names=NAMES)
    parquet_file(tmp_path / 'train-00001-of-00002.parquet', [jpeg(5)], [2], **({'names': NAMES} | other))
    refused('train-00001-of-00002.parquet', 'other columns or class names', format='parquet', path=tmp_path)


def test_parquet_passes_over_empty_files_and_reads_any_integers(tmp_path):
    parquet_file(tmp_path / 'train-0.parquet', [], [])
    parquet_file(tmp_path / 'train-1.parquet', [jpeg(1), jpeg(2)], pa.array([2, 1], pa.uint8()))
    source = create('parquet', tmp_path)
    assert source.labels.tolist() == [2, 1] and source.image(1) == jpeg(2)
    assert source.class_names == ()


def test_parquet_pickles_small_and_reads_after_it(tmp_path):
    source = create('parquet', hub(tmp_path))
    before = len(pickle.dumps(source))
    source.image(3)
    data = pickle.dumps(source)
    assert len(data) == before
    assert pickle.loads(data).image(3) == jpeg(3)


def test_parquet_keeps_no_more_row_groups_than_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_layout, 'CACHE_BYTES', 1)
    source = create('parquet', hub(tmp_path))
    for i in (0, 9, 1, 5, 0):
        assert source.image(i) == jpeg(i)
        assert len(source._cache) == 1


def test_threads_may_read_parquet_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_layout, 'CACHE_BYTES', 1)
    source, order = create('parquet', hub(tmp_path)), np.random.default_rng(0).integers(10, size=200).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.image, order)) == [jpeg(i) for i in order]


def test_null_image_cannot_be_decoded(tmp_path):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg(), None], [0, 1])
    source = create('parquet', tmp_path)
    assert source.image(0) == jpeg()
    with pytest.raises(DecodeError, match='0 bytes'):
        decode(source.image(1))


@pytest.mark.parametrize('labels,words', [
    (pa.array([1, None], pa.int64()), 'with 1 nulls'), (pa.array(['a', 'b']), 'it is string'),
    (pa.array([0.0, 1.0]), 'it is double')])
def test_labels_that_are_no_integers_are_refused(tmp_path, labels, words):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()] * 2, labels)
    refused('train-0.parquet', 'column label must hold an integer', words, format='parquet', path=tmp_path)


def test_image_column_of_another_type_is_refused(tmp_path):
    pq.write_table(pa.table({'image': [jpeg()], 'label': [0]}), tmp_path / 'train-0.parquet')
    refused('train-0.parquet', 'column image must be a struct with a field bytes', 'binary',
            format='parquet', path=tmp_path)


def test_missing_columns_are_named_with_those_there(tmp_path):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()], [0], image='photo')
    refused('no column image or img', 'photo, label', format='parquet', path=tmp_path)
    parquet_file(tmp_path / 'train-0.parquet', [jpeg()], [0], label='kind')
    refused('no column label or fine_label', 'image, kind', format='parquet', path=tmp_path)


def page_data(file: Path) -> int:
    """Where the footer begins."""
    data = file.read_bytes()
    return len(data) - 8 - struct.unpack('<I', data[-8:-4])[0]


@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda data: data[:-1], lambda data: b'',
                                    lambda data: flip_bit(data, len(data) - 7), lambda data: flip_bit(data, 0)[:100],
                                    lambda data: data.replace(b'label', b'\xffabel')],
                         ids=['half', 'last-byte', 'empty', 'footer-length', 'start', 'name-not-utf8'])
def test_a_damaged_parquet_file_is_named(tmp_path, damage):
    file = hub(tmp_path) / 'train-00001-of-00002.parquet'
    file.write_bytes(damage(file.read_bytes()))
    refused(file, 'cannot be read as Parquet', format='parquet', path=tmp_path)


def test_page_checksums_catch_a_flipped_bit_in_an_image(tmp_path):
    file = hub(tmp_path, write_page_checksum=True, compression='none') / 'train-00001-of-00002.parquet'
    data = file.read_bytes()
    file.write_bytes(flip_bit(data, data.index(jpeg(7)) + 300))
    source = create('parquet', tmp_path)
    for i in range(10):
        if i in (7, 8):  # its row group
            with pytest.raises(OSError, match=r'(?i)crc|checksum'):
                source.image(i)
        else:
            assert source.image(i) == jpeg(i)


def test_page_checksums_catch_a_flipped_bit_in_a_label(tmp_path):
    file = parquet_file(tmp_path / 'train-0.parquet', [jpeg()] * 4, [0, 1, 2, 0], write_page_checksum=True,
                        compression='none', use_dictionary=False)
    data = file.read_bytes()
    # Third label: 2 becomes 0, which nothing else would notice.
    at = data.index(struct.pack('<4q', 0, 1, 2, 0)) + 16
    file.write_bytes(data[:at] + b'\0' + data[at + 1:])
    refused(file, 'cannot be read as Parquet', format='parquet', path=tmp_path)


@pytest.mark.parametrize('checksums', [True, False])
@pytest.mark.parametrize('compression', ['snappy', 'none'])
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path, checksums, compression):
    """With page checksums no wrong image comes; without them only errors that the pipeline handles."""
    images, labels = [jpeg(i) for i in range(4)], [0, 1, 2, 0]
    file = parquet_file(tmp_path / 'train-0.parquet', images, labels, NAMES, row_group_size=2, compression=compression,
                        write_page_checksum=checksums)
    data, footer, noticed = file.read_bytes(), page_data(file), 0
    for at in range(4, len(data), 41):
        file.write_bytes(flip_bit(data, at))
        try:
            source = create('parquet', tmp_path)
        except UserError:
            noticed += 1
            continue
        if checksums and at < footer:
            assert source.labels.tolist() == labels
        for i in range(len(source)):
            try:
                image = source.image(i)
            except OSError:
                noticed += 1
                continue
            assert not checksums or at >= footer or image == images[i]
    assert noticed


def test_a_file_replaced_by_one_with_other_row_groups_is_an_os_error(tmp_path):
    source = create('parquet', hub(tmp_path))
    hub(tmp_path, row_group_size=1)
    with pytest.raises(OSError, match='row group 0 holds 1 images, not 2'):
        source.image(1)


# Sources that need no disk.

def test_digits_are_split_without_overlap():
    from sklearn.datasets import load_digits
    train, test = (create('digits', '', split, 10) for split in ('train', 'test'))
    assert (len(train), len(test)) == (1437, 360)
    rows = {source.key(i): source[i] for source in (train, test) for i in range(len(source))}
    assert len(rows) == 1797
    digits = load_digits()
    for i in (0, 1, 5, 1796):
        row = rows[f'digits/{i}']
        assert row['label'] == digits.target[i]
        assert row['image'].shape == (8, 8, 1) and row['image'].dtype == np.uint8
        np.testing.assert_allclose(row['image'][..., 0] / 255, digits.images[i] / 16, atol=0.002)
    assert train.class_names == tuple('0123456789')
    refused('train and test', "'val'", format='digits', split='val', num_classes=10)
    refused('outside 0..8', '10 classes', format='digits', num_classes=9)


def test_synthetic_images_are_a_function_of_the_index():
    source, again = (create('synthetic', '', num_classes=7, num_examples=50) for _ in range(2))
    assert len(source) == 50 and set(source.labels) == set(range(7))
    np.testing.assert_array_equal(source.labels, again.labels)
    assert source.image(3).shape == (8, 8, 3) and source.image(3).dtype == np.uint8
    np.testing.assert_array_equal(source.image(3), again.image(3))
    assert (source.image(3) != source.image(4)).any()


def test_synthetic_is_as_large_as_imagenet():
    assert len(create('synthetic', '', 'train')) == 1_281_167
    assert len(create('synthetic', '', 'validation')) == 50_000
    refused('num_examples', '-1', format='synthetic', num_examples=-1)
