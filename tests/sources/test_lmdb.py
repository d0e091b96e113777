"""LMDB as the usual scripts write it."""

import pickle
import struct

import msgpack
import numpy as np
import pytest
from fixtures_images import image_folder, jpeg
from fixtures_layouts import Run, database, python2
from fixtures_sources import create, refused

from imagenet_jax import sources


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def old_pack(value):
    return msgpack.packb(value, use_bin_type=False)


@pytest.mark.parametrize('subdir', [False, True])
@pytest.mark.parametrize('dump', [pickle.dumps, pack, old_pack, python2, lambda value: pickle.dumps(value, 5)])
def test_lmdb_is_read_as_the_usual_scripts_write_it(tmp_path, dump, subdir):
    source = create('lmdb', database(tmp_path, dump, subdir=subdir))
    for read in (source, pickle.loads(pickle.dumps(source))):
        assert [read[i] for i in (5, 0, 3)] == [
            {'image': jpeg(i), 'label': i % 3, 'key': f'train.lmdb:{i}'} for i in (5, 0, 3)]
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2] and source.labels.dtype == np.int32
    assert source.class_names == ()


def test_lmdb_without_keys_counts_up(tmp_path):
    source = create('lmdb', database(tmp_path, count=12, __keys__=None))
    assert [source.key(i) for i in (2, 11)] == ['train.lmdb:2', 'train.lmdb:11']
    assert source.image(11) == jpeg(11)


def test_lmdb_follows_the_order_of_its_keys(tmp_path):
    source = create('lmdb', database(tmp_path, __keys__=pickle.dumps(['2', '0']), __len__=pickle.dumps(2)))
    assert [source.image(i) for i in range(2)] == [jpeg(2), jpeg(0)] and source.labels.tolist() == [2, 0]


def test_a_scan_of_labels_copies_no_image(tmp_path):
    record = sources.lmdb._record
    for dump in (pickle.dumps, pack):
        value = memoryview(dump((b'x' * 1000, 7)))
        image, label = record(value)
        assert label == 7 and image.obj is value.obj


CRAFTED = pickle.dumps(Run('touch ran'))


@pytest.mark.parametrize('value,words', [
    (CRAFTED, 'posix.system'), (pickle.dumps((Run('touch ran'), 0)), 'posix.system'), (None, 'missing'),
    (b'', 'neither'),
    (pickle.dumps((jpeg(), 0))[:-40], 'damaged'), (pack((jpeg(), 0))[:-40], 'Unpack failed'),
    (pack((jpeg(), 0)) + b'1', 'extra'), (b'\x92\xc6\0', 'truncated'), (b'\0' * 50, 'neither'),
    (pickle.dumps((jpeg(), 'cat')), 'not .encoded image, label'), (pickle.dumps((jpeg(), 2**31)), 'not .encoded image'),
    (pickle.dumps((jpeg(), 1 << 3000)), '3001 bits'),
    (pickle.dumps((0, jpeg())), 'not .encoded image'), (pickle.dumps(jpeg()), 'holds memoryview'),
    (pickle.dumps((jpeg(), 0, 0)), 'holds tuple')])
def test_a_broken_value_is_a_bad_sample(tmp_path, value, words, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = create('lmdb', database(tmp_path / 'set', **{'4': value}))
    assert '1 of 6 values' in caplog.text and 'train.lmdb:4' in caplog.text and 'bad samples' in caplog.text
    with pytest.raises(OSError, match=f'train.lmdb: .*{words}'):
        source.image(4)
    assert [source.image(i) for i in (0, 1, 2, 3, 5)] == [jpeg(i) for i in (0, 1, 2, 3, 5)]
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('entry', ['__keys__', '__len__'])
@pytest.mark.parametrize('value,words', [
    (CRAFTED, 'posix.system'), (b'\0\0\0\0\1\0\0\0', 'pyarrow.serialize'), (pickle.dumps(7)[:-1], 'damaged'),
    (pickle.dumps('six'), 'must be'), (pickle.dumps([1, 2]), 'must be'), (pickle.dumps([b'1' * 512]), 'must be'),
    (pickle.dumps(2**40), 'must be'),
    (b'', 'neither msgpack')])
def test_a_broken_table_of_contents_is_refused(tmp_path, entry, value, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database(tmp_path / 'set', **{entry: value})
    refused(tmp_path / 'set' / 'train.lmdb', entry, words, format='lmdb', path=tmp_path / 'set')
    assert not (tmp_path / 'ran').exists()


def test_contents_that_do_not_fit_are_refused(tmp_path):
    for name, changes, words in (
            ('few', {'__len__': pickle.dumps(5)}, '__len__ is 5, but __keys__ has 6, 6 of them'),
            ('twice', {'__keys__': pickle.dumps([b'1'] * 6)}, '6, 1 of them distinct'),
            ('none', {'__len__': None}, 'missing'),
            ('all', {str(i): CRAFTED for i in range(6)}, '6 of 6 values'),
            ('range', {'2': pickle.dumps((jpeg(), 9))}, 'outside 0..2, the first 9 at train.lmdb:2')):
        refused(words, format='lmdb', path=database(tmp_path / name, **changes))
    refused("'train' is empty", format='lmdb', path=database(tmp_path / 'empty', count=0))
    refused('no val.lmdb', 'train.lmdb', format='lmdb', path=tmp_path / 'empty', split='val')


@pytest.mark.parametrize('subdir', [False, True])
@pytest.mark.parametrize('length', [0, 100, 4096, 8192, 12288, -1])
def test_truncated_lmdb_is_refused(tmp_path, length, subdir):
    database(tmp_path, count=40, subdir=subdir)
    file = tmp_path / 'train.lmdb' / 'data.mdb' if subdir else tmp_path / 'train.lmdb'
    file.write_bytes(file.read_bytes()[:length])
    refused('train.lmdb', 'truncated' if length in (8192, 12288, -1) else 'cannot be read as LMDB',
            format='lmdb', path=tmp_path)


def test_another_file_named_lmdb_is_refused(tmp_path):
    image_folder(tmp_path, {'train.lmdb': jpeg() * 40})
    refused('train.lmdb', 'cannot be read as LMDB', format='lmdb', path=tmp_path)


def test_a_table_of_contents_that_claims_millions_is_refused(tmp_path):
    deep = b'\xdd\xff\xff\xff\xff' * 500
    for name, changes in (('len', {'__len__': pickle.dumps(2**30)}),
                          ('keys', {'__keys__': b'\x80\x02' + b']' * 50_000}),
                          ('text', {'__keys__': pack(['x' * 500] * 100)}), ('deep', {'__keys__': deep}),
                          ('long', {'__len__': pickle.dumps(b'x' * 5000)})):
        refused(tmp_path / name, '__', format='lmdb', path=database(tmp_path / name, **changes))


def test_entries_are_believed_only_as_far_as_the_file_has_room(tmp_path):
    database(tmp_path, __len__=pickle.dumps(10**9), __keys__=None)
    file = tmp_path / 'train.lmdb'
    data = bytearray(file.read_bytes())
    for page in (0, 4096):  # of either: the main database's md_entries
        struct.pack_into('<Q', data, page + 16 + 24 + 48 + 32, 10**9)
    file.write_bytes(data)
    refused(file, '__len__ must be', 'room for', format='lmdb', path=tmp_path)
