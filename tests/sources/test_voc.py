"""PASCAL VOC: one class an image, or several."""

import pickle

import numpy as np
import pytest
from fixtures_layouts import thing, voc
from fixtures_sources import create, refused

from imagenet_jax import sources


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
