"""Parquet files as on the Hugging Face hub."""

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fixtures_images import flip_bit, jpeg, parquet_file
from fixtures_sources import NAMES, create, refused

from imagenet_jax.errors import UserError
from imagenet_jax.sources import parquet as parquet_layout
from imagenet_jax.sources import parquet_columns


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


def test_a_row_group_is_read_in_parts(tmp_path, monkeypatch):
    """Arrow refuses one array of structs that hold more than 2 GiB."""
    monkeypatch.setattr(parquet_columns, '_ROWS', 2)
    source = create('parquet', hub(tmp_path, row_group_size=5))
    assert [source.image(i) for i in range(10)] == [jpeg(i) for i in range(10)]
    assert source._cache[0][0].num_chunks == 3


def test_threads_may_read_parquet_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_layout, 'CACHE_BYTES', 1)
    source, order = create('parquet', hub(tmp_path)), np.random.default_rng(0).integers(10, size=200).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.image, order)) == [jpeg(i) for i in order]


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
