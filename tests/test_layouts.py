"""The layouts flat, list, cifar, lmdb and voc: what is read from good ones, and what bad ones get."""

import logging
import os
import pickle

import msgpack
import numpy as np
import pytest
from fixtures_images import image_folder, jpeg
from fixtures_layouts import IMAGES, Run, cifar10, cifar100, database, flat, listed, python2, text, thing, voc

from imagenet_jax import sources
from imagenet_jax.errors import UserError

WNIDS = ('n01440764', 'n01443537', 'n01484850')


def create(format, path, split='train', num_classes=3, **options):
    return sources.create(format, str(path), split, num_classes, 8, **options)


def refused(*words, **kwargs):
    """Asserts a UserError that contains every word."""
    with pytest.raises(UserError) as caught:
        create(**kwargs)
    for word in words:
        assert str(word) in str(caught.value)


# Flat folders.

def test_flat_labels_are_lines_of_synsets(tmp_path):
    source = pickle.loads(pickle.dumps(create('flat', flat(tmp_path))))
    assert source.class_names == WNIDS and source.labels.dtype == np.int32
    assert [(source.key(i), source[i]['label']) for i in range(4)] == [
        ('n01440764_10026.JPEG', 0), ('n01440764_ILSVRC2012_val_00000293.JPEG', 0), ('n01443537_1.png', 1),
        ('n01484850_3.JPEG', 2)]
    assert all(source.image(i) == source.key(i).encode() for i in range(4))


def test_flat_numbers_by_line_not_by_name(tmp_path):
    source = create('flat', flat(tmp_path, '\n'.join(reversed(WNIDS))))
    assert source.labels.tolist() == [2, 2, 1, 0]


def test_flat_leaves_out_what_is_no_image(tmp_path, caplog):
    flat(tmp_path, files=['readme', '.hidden.JPEG'])
    (tmp_path / 'train_flatten' / 'loop').symlink_to(tmp_path / 'train_flatten', target_is_directory=True)
    with caplog.at_level(logging.WARNING):
        assert len(create('flat', tmp_path)) == 4
    assert '2 files or folders that are not images' in caplog.text


@pytest.mark.parametrize('name', ['n09999999_1.JPEG', 'n01440764.JPEG', '_1.JPEG', 'x.JPEG'])
def test_flat_names_without_a_known_wnid_are_refused(tmp_path, name):
    refused('1 images', name, tmp_path / 'synsets.txt', format='flat', path=flat(tmp_path, files=[name]))


@pytest.mark.parametrize('synsets,words', [
    ('n01440764\nn01443537\nn01440764 again\n', ('synsets.txt:3', 'repeats n01440764 of line 1')),
    ('n01440764\n\nn01443537\n', ('synsets.txt:2', 'names no wnid')), ('', ('synsets.txt:1',))])
def test_broken_synsets_are_refused(tmp_path, synsets, words):
    refused(*words, format='flat', path=flat(tmp_path, synsets))


def test_flat_without_synsets_or_split_is_refused(tmp_path):
    flat(tmp_path)
    refused(tmp_path / 'val_flatten', 'train_flatten', format='flat', path=tmp_path, split='val')
    (tmp_path / 'synsets.txt').unlink()
    refused(tmp_path / 'synsets.txt', 'one wnid a line', format='flat', path=tmp_path)


# Lists.

def test_list_keeps_its_order_and_its_paths(tmp_path):
    source = create('list', listed(tmp_path, '\ufeff# from a mirror\r\ntrain/a b/1.JPEG  2\r\n\r\ntrain/c.JPEG\t0\r\n'))
    assert [source[i] for i in range(len(source))] == [
        {'image': b'one', 'label': 2, 'key': 'train/a b/1.JPEG'}, {'image': b'two', 'label': 0, 'key': 'train/c.JPEG'}]
    assert source.labels.dtype == np.int32 and source.class_names == ()


def test_list_of_images_elsewhere(tmp_path):
    image_folder(tmp_path / 'photos', {'c.JPEG': b'two'})
    text(tmp_path / 'lists', train='c.JPEG 0\n')
    for images in (str(tmp_path / 'photos'), '../photos'):
        assert create('list', tmp_path / 'lists', images=images).image(0) == b'two'
    assert create('list', tmp_path, 'lists/train', images='photos').image(0) == b'two'
    refused(tmp_path / 'lists' / 'none', 'data.images', format='list', path=tmp_path / 'lists', images='none')


def test_list_follows_links_and_undecodable_names(tmp_path):
    name = os.fsdecode(b'\xff.JPEG')
    image_folder(tmp_path / 'disk', {name: b'three'})
    root = image_folder(tmp_path / 'set', {'train.txt': b'train/\xff.JPEG 1\n'})
    (root / 'train').symlink_to(tmp_path / 'disk', target_is_directory=True)
    assert pickle.loads(pickle.dumps(create('list', root))).image(0) == b'three'


def test_a_listed_image_that_is_missing_is_a_bad_sample(tmp_path):
    source = create('list', listed(tmp_path, 'train/none.JPEG 0\ntrain/c.JPEG 1\n'))
    with pytest.raises(OSError, match='none'):
        source.image(0)
    assert source.image(1) == b'two'


@pytest.mark.parametrize('line,words', [
    ('../outside.JPEG 0', 'leads out'), ('train/../../outside.JPEG 0', 'leads out'), ('/etc/passwd 0', 'leads out'),
    ('train/c.JPEG', 'does not end in a label'), ('train/c.JPEG n01440764', 'does not end in a label'),
    ('train/c.JPEG 1.0', 'does not end in a label'), ('train/c.JPEG ١', 'does not end in a label'),
    ('train/c.JPEG 4294967296', 'does not end in a label'), ('7', 'no path'), ('train/c\0.JPEG 0', 'no path of a file'),
    ('x' * 5000 + ' 0', 'no path of a file')])
def test_broken_lines_are_refused_with_their_number(tmp_path, line, words):
    refused(f'{tmp_path / "train.txt"}:2', words, format='list', path=listed(tmp_path, f'train/c.JPEG 0\n{line}\n'))


def test_list_without_entries_or_file_is_refused(tmp_path):
    refused("'train' is empty", format='list', path=listed(tmp_path, '# nothing\n'))
    refused(tmp_path / 'val.txt', 'train.txt', format='list', path=tmp_path, split='val')
    refused('outside 0..1', 'train/a b/1.JPEG', format='list', path=listed(tmp_path), num_classes=2)
    refused('outside 0..2', 'the first -1 at train/c.JPEG', format='list', path=listed(tmp_path, 'train/c.JPEG -1'))


@pytest.mark.parametrize('names', [
    'house finch\ncrane\ncrane\n', '0 house finch\n1 crane\n2 crane', '2: crane\n\n0: house finch\n1:crane\n',
    '0,house finch\n1,crane\n2,crane\n', "{0: 'house finch',\n 1: 'crane', 2: \"crane\"}"])
def test_class_names_of_a_list(tmp_path, names):
    source = create('list', listed(tmp_path, labels_to_content=names))
    assert source.class_names == ('house finch', 'crane', 'crane')


@pytest.mark.parametrize('names,words', [
    ('0 a\n2 b\n', 'look at label 1'), ('0 a\n0 b\n', 'look at label 1'), ('1 a\n2 b\n', 'look at label 0'),
    ('0 a\nb\n', "'b' does not begin with a label"), ("{0: 'a', 0: 'b'}", 'look at label 1'),
    ("{0: __import__('os').getcwd()}", 'not the text of a dict'), ("{'a': 0}", 'dict of labels'),
    ("{0: 'a'", 'not the text of a dict'), ('{**{}}', 'not the text of a dict'), ('{' * 9000, 'not the text of a dict'),
    ("{-1: 'a', 0: 'b'}", 'look at label -1')])
def test_broken_class_names_of_a_list_are_refused(tmp_path, names, words):
    refused(tmp_path / 'labels_to_content.txt', words, format='list', path=listed(tmp_path, labels_to_content=names))


def test_class_names_that_are_not_utf8_are_refused(tmp_path):
    image_folder(listed(tmp_path), {'labels_to_content.txt': b'K\xe4fer\n'})
    refused('labels_to_content.txt', 'not UTF-8', format='list', path=tmp_path)


def test_a_list_beside_the_folders_it_names_is_no_second_format(tmp_path):
    image_folder(tmp_path, {'train/n01440764/1.JPEG': b'one', 'train/n01443537/2.JPEG': b'two'})
    text(tmp_path, train='train/n01443537/2.JPEG 0\n')
    assert len(create('folder', tmp_path)) == 2
    assert create('list', tmp_path)[0] == {'image': b'two', 'label': 0, 'key': 'train/n01443537/2.JPEG'}


# CIFAR.

@pytest.mark.parametrize('dump', [python2, pickle.dumps])
@pytest.mark.parametrize('inside', ['', 'cifar-10-batches-py'])
def test_cifar10_is_read_in_file_order(tmp_path, dump, inside):
    cifar10(tmp_path, dump)
    source = pickle.loads(pickle.dumps(create('cifar', tmp_path / inside)))
    assert len(source) == 50 and source.class_names == ('cat', 'dog', 'elk')
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0] * 5 and source.labels.dtype == np.int32
    for i in (0, 9, 10, 27, 49):
        assert source.key(i) == f'data_batch_{i // 10 + 1}:{i % 10}'
        assert source.image(i).dtype == np.uint8 and source.image(i).flags.c_contiguous
        np.testing.assert_array_equal(source.image(i), IMAGES[i].transpose(1, 2, 0))
    test = create('cifar', tmp_path / inside, 'test')
    assert test.key(3) == 'test_batch:3'
    np.testing.assert_array_equal(test[3]['image'], IMAGES[53].transpose(1, 2, 0))


def test_cifar_pickles_small(tmp_path):
    assert len(pickle.dumps(create('cifar', cifar10(tmp_path)))) < 5000


def test_cifar100_has_fine_and_coarse_labels(tmp_path):
    cifar100(tmp_path)
    fine, coarse = create('cifar', tmp_path, num_classes=5), create('cifar', tmp_path, num_classes=2, labels='coarse')
    assert fine.class_names == tuple('abcde') and fine.labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert coarse.class_names == ('vowel', 'consonant') and coarse.labels.tolist() == [0, 1] * 5
    refused('data.labels', "'corse'", 'coarse', format='cifar', path=tmp_path, labels='corse')


def test_cifar_parts_of_the_training_split(tmp_path):
    cifar100(tmp_path / 'whole', 50_000)
    train, val = (create('cifar', tmp_path / 'whole', split, num_classes=5) for split in ('train45k', 'val5k'))
    assert (len(train), len(val)) == (45_000, 5_000)
    assert train.key(44_999) == 'train:44999' and val.key(0) == 'train:45000' and val.key(4_999) == 'train:49999'
    assert val.labels[:3].tolist() == [0, 1, 2]
    assert [train.image(44_999)[0, 0, 0], val.image(0)[0, 0, 0]] == [44_999 % 251, 45_000 % 251]
    cifar100(tmp_path / 'small')
    refused('part of 50,000', 'has 10', format='cifar', path=tmp_path / 'small', split='val5k')


def test_cifar_that_is_not_there_or_twice_is_refused(tmp_path):
    refused(tmp_path, 'no CIFAR', 'cifar-10-batches-py', format='cifar', path=tmp_path)
    cifar10(tmp_path)
    refused("'val'", 'did you mean val5k', format='cifar', path=tmp_path, split='val')
    refused('data.labels of cifar-10-batches-py', "'coarse'", format='cifar', path=tmp_path, labels='coarse')
    cifar100(tmp_path)
    refused('cifar-10-batches-py and cifar-100-python', format='cifar', path=tmp_path)


@pytest.mark.parametrize('changes,words', [
    ({'data': np.zeros((9, 3072), np.uint8)}, '10 labels for 9 images'), ({'data': [1]}, 'it is list'),
    ({'data': np.zeros((10, 3071), np.uint8)}, '(10, 3071)'), ({'labels': [0] * 9 + [3]}, 'of row 9'),
    ({'labels': [0] * 9 + [-1]}, 'of row 9'), ({'labels': [0] * 9 + ['1']}, 'of row 9'), ({'labels': 7}, 'no labels')])
def test_cifar_with_wrong_contents_is_refused(tmp_path, changes, words):
    refused('data_batch_3', words, format='cifar', path=cifar10(tmp_path, **changes))


@pytest.mark.parametrize('data', [np.zeros((10, 3072)), np.zeros((10, 3072), object), Run('touch ran')])
def test_cifar_with_anything_but_uint8_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = 'posix.system' if isinstance(data, Run) else 'not of uint8'
    refused('data_batch_3', word, format='cifar', path=cifar10(tmp_path / 'set', pickle.dumps, data=data))
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('file', ['data_batch_2', 'batches.meta'])
def test_damaged_cifar_files_are_named(tmp_path, file):
    path = cifar10(tmp_path) / 'cifar-10-batches-py' / file
    data = path.read_bytes()
    for damaged in (data[:len(data) // 2], data[:-1], b'', b'\x1f\x8b' + data, python2([1])):
        path.write_bytes(damaged)
        refused(path, format='cifar', path=tmp_path)
    path.unlink()
    refused(file if 'batch_' in file else 'no CIFAR', format='cifar', path=tmp_path)


# LMDB.

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


# VOC.

@pytest.mark.parametrize('folder,inside', [('VOC2012', ''), ('VOC2012', 'VOC2012'), ('VOC2007', '')])
def test_voc_takes_the_largest_object(tmp_path, folder, inside):
    source = pickle.loads(pickle.dumps(create('voc', voc(tmp_path, folder) / inside, num_classes=20)))
    assert [source.class_names[label] for label in source.labels] == ['dog', 'cat', 'bus', 'bird']
    assert source.labels.dtype == np.int32 and list(source.class_names) == sorted(source.class_names)
    assert source[1] == {'image': b'2007_000032', 'label': 7, 'key': '2007_000032.jpg'}


def test_voc_multi_label_does_not_count_difficult_objects(tmp_path):
    source = create('voc', voc(tmp_path), num_classes=20, labels='all')
    assert source.labels.shape == (4, 20) and source.labels.dtype == np.float32
    names = np.array(source.class_names)
    assert [(set(names[row == 1]), set(names[np.isnan(row)])) for row in source.labels] == [
        ({'person', 'dog'}, set()), ({'cat'}, {'sofa'}), (set(), {'car', 'bus', 'aeroplane'}), ({'bird'}, set())]
    assert ((source.labels == 0) | (source.labels == 1) | np.isnan(source.labels)).all()
    np.testing.assert_array_equal(source[1]['label'], source.labels[1])
    refused('has 20 labels an image, not 3', 'num_classes=20', format='voc', path=tmp_path, labels='all')


def test_multi_labels_other_than_0_and_1_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.voc, '_all', lambda *objects: np.full(20, 0.5, np.float32))
    refused('4 images', 'other than 0, 1 and NaN', '2007_000027.jpg', format='voc', path=voc(tmp_path), num_classes=20,
            labels='all')


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + ''.join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip('abcdefghi', 'bcdefghij', strict=True)) + ']>'


@pytest.mark.parametrize('data,words', [
    ('', 'cannot be read'), ('<annotation>', 'cannot be read'), ('<annotation/>', 'no object'),
    (f'<a>{thing("unicorn")}</a>', "'unicorn' is none of the 20"), ('<a><object/></a>', "'' is none of the 20"),
    ('<a><object><name>dog</name></object></a>', 'a dog has no bndbox'),
    (f'<a>{thing("dog", (1, 2, "x", 4))}</a>', 'float'),
    (f'<a>{thing("dog", (9, 2, 3, 4))}</a>', 'inside out'), (f'<a>{thing("dog", (1, 2, "nan", 4))}</a>', 'inside out'),
    (f'<a>{thing("dog", (1, 2, "inf", 4))}</a>', 'inside out'), (f'{LAUGHS}<a>&j;</a>', 'document type'),
    (f'<?xml version="1.0" encoding="utf-16"?>{LAUGHS}<a>&j;</a>'.encode('utf-16'), 'cannot be read'),
    ('<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>', 'document type'),
    (b'\xff<a/>', 'cannot be read'), ('<a>' * 50_000, 'cannot be read')])
def test_broken_annotations_are_named(tmp_path, data, words):
    file = voc(tmp_path) / 'VOC2012' / 'Annotations' / '2007_000032.xml'
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    refused(file, words, format='voc', path=tmp_path, num_classes=20)


@pytest.mark.parametrize('line', ['../../../etc/passwd', '2007_000027 -1', '/etc/passwd', '..'])
def test_names_that_are_none_are_refused(tmp_path, line):
    refused('train.txt', repr(line), 'not the name of an image', format='voc', path=voc(tmp_path, lines=f'{line}\n'))


def test_voc_that_is_not_there_or_twice_is_refused(tmp_path):
    voc(tmp_path)
    refused(tmp_path, 'ImageSets/Main/val.txt', format='voc', path=tmp_path, split='val')
    refused('data.labels of VOC', "'al'", format='voc', path=tmp_path, labels='al')
    refused('2007_000099.xml', 'cannot be read', format='voc', path=voc(tmp_path, lines='2007_000099\n'))
    voc(tmp_path, 'VOC2007')
    refused('VOC2007 and VOC2012', format='voc', path=tmp_path)
