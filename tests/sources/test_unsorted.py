"""Splits whose images lie together, their classes in a table."""

import pytest
from fixtures_images import image_folder, jpeg
from fixtures_sources import create, refused

TRAIN = {f'train/{name}/images/{name}_0.JPEG': b'x' for name in ('ant', 'bee', 'cat')}


def labelled(root, split='val'):
    """{key: class name}"""
    source = create('folder', root, split, num_classes=None)
    return {source.key(i): source.class_names[source.labels[i]] for i in range(len(source))}


def tiny(root):
    """Tiny ImageNet as it is unpacked; its wnids stand in no order."""
    rows = ''.join(f'val_{i}.JPEG\t{name}\t0\t32\t44\t62\n' for i, name in ((10, 'ant'), (2, 'cat'), (1, 'ant')))
    return image_folder(root, {
        **TRAIN, 'train/ant/ant_boxes.txt': b'', 'wnids.txt': b'cat\nant\nbee\n',
        'val/val_annotations.txt': rows.encode(),
        **{f'val/images/val_{i}.JPEG': bytes([i]) for i in (1, 2, 10)}, 'test/images/test_0.JPEG': jpeg()})


def test_tiny_imagenet_as_unpacked(tmp_path):
    tiny(tmp_path)
    source = create('folder', tmp_path, 'val')
    assert source.class_names == create('folder', tmp_path, 'train').class_names == ('ant', 'bee', 'cat')
    assert labelled(tmp_path) == {'images/val_1.JPEG': 'ant', 'images/val_10.JPEG': 'ant', 'images/val_2.JPEG': 'cat'}
    assert source.image(1) == bytes([10])
    refused(tmp_path / 'test', '1 images and no class folders', 'looked there', 'image,class', path=tmp_path,
            split='test')


def test_folders_that_are_numbers_number_a_table_too(tmp_path):
    names = ('0', '1', '2', '10', *map(str, range(3, 10)))
    image_folder(tmp_path, {**{f'train/{name}/a.jpg': b'' for name in names}, 'val/a.jpg': b'', 'val/b.jpg': b'',
                            'val.csv': b'image,label\na.jpg,10\nb.jpg,2\n'})
    train, val = (create('folder', tmp_path, split, num_classes=11) for split in ('train', 'val'))
    assert train.class_names == val.class_names == tuple(map(str, range(11)))
    assert val.labels.tolist() == [10, 2]


@pytest.mark.parametrize('inside', ['', 'ILSVRC', 'ILSVRC/Data/CLS-LOC'])
def test_imagenet_as_kaggle_has_it(tmp_path, inside):
    data = 'ILSVRC/Data/CLS-LOC'
    image_folder(tmp_path, {
        f'{data}/train/n02/n02_1.JPEG': b'', f'{data}/train/n01/n01_1.JPEG': b'', 'ILSVRC/Annotations/x.xml': b'',
        f'{data}/val/ILSVRC2012_val_00000001.JPEG': b'', f'{data}/val/ILSVRC2012_val_00000002.JPEG': b'',
        f'{data}/test/ILSVRC2012_test_00000001.JPEG': b'',
        'LOC_synset_mapping.txt': b'n01 tench\nn02 goldfish\nn03 shark\n',
        'LOC_sample_submission.csv': b'ImageId,PredictionString\nILSVRC2012_test_00000001,n01 0 0 1 1\n',
        'LOC_val_solution.csv': b'ImageId,PredictionString\nILSVRC2012_val_00000002,n01 1 1 9 9 n01 2 2 8 8 \n'
                                b'ILSVRC2012_val_00000001,n02 1 1 9 9\n'})
    assert labelled(tmp_path / inside) == {'ILSVRC2012_val_00000001.JPEG': 'n02', 'ILSVRC2012_val_00000002.JPEG': 'n01'}
    assert create('folder', tmp_path / inside, 'val').class_names == ('n01', 'n02')
    assert labelled(tmp_path / inside, 'train') == {'n01/n01_1.JPEG': 'n01', 'n02/n02_1.JPEG': 'n02'}
    refused('no class folders', 'LOC_test_solution.csv', path=tmp_path / inside, split='test')


TABLES = {
    'val.csv': b'image,label\na.jpg,bee\nb.JPG,ant\n',
    'val_labels.csv': b'filename,class\r\na.jpg,bee\r\nb.JPG,ant\r\n',
    'labels_val.csv': b'a.jpg,bee\nb.JPG,ant\n', 'validation.csv': b'"image","label"\n"a.jpg","bee"\n"b.JPG","ant"\n',
    'val/labels.csv': b'\xef\xbb\xbfclass,image\nbee,a\n\nant,b\n', 'val/x.tsv': b'a.jpg\tbee\nb.JPG\tant',
    'val_solution.csv': b'Image Path;Class;area\nval/a.jpg;bee;3\n./val/b.JPG;ant;4\n',
    'metadata.csv': b',file_name,x,category\r0,a.jpg,1,bee\r1,b.JPG,2,ant\r2,other.jpg,2,dog\r',
    'val_map.txt': b'a.jpg  bee \nb.JPG ant\n', 'labels.csv': 'image,label\na,bee\nb,ant\n'.encode('utf-16')}


@pytest.mark.parametrize('table', TABLES)
def test_tables_in_the_forms_that_go_round(tmp_path, table):
    image_folder(tmp_path, {**TRAIN, 'val/a.jpg': b'', 'val/b.JPG': b'', 'val/._a.jpg': b'', 'val/.DS_Store': b'',
                            'val/__MACOSX/._a.jpg': b'', 'val/xml/a.xml': b'', table: TABLES[table]})
    assert labelled(tmp_path) == {'a.jpg': 'bee', 'b.JPG': 'ant'}
    assert create('folder', tmp_path, 'val').class_names == ('ant', 'bee', 'cat')


@pytest.mark.parametrize('table,words', [
    (b'', ['empty']), (b'image,label\n', ['none of its first rows', 'a.jpg']), (b'bee\nant\n', ['none of its']),
    (b'a.jpg\nb.JPG\n', ['one column']), (b'a.jpg,bee\n', ['1 of the 2 images', 'the first b.JPG']),
    (b'c.jpg,bee\na.jpg,bee\nb.JPG,ant\n', ["1 images that are not in", "'c.jpg' in line 1"]),
    (b'image,label\na.jpg,bee\nb.JPG,ant\nc.jpg,ant\n', ["'c.jpg' in line 4"]),
    (b'a.jpg,bee\nb.JPG,ant\na.jpg,ant\n', ["a.jpg is 'bee' in line 1 and 'ant' in line 3"]),
    (b'a.jpg,bee\nb.JPG,dog\n', ['1 images are of classes', "b.JPG of 'dog'", 'ant, bee, cat']),
    (b'a.jpg,1\nb.JPG,0\n', ["a.jpg of '1'", 'not by a number']), (b'a.jpg,bee\nb.JPG,\n', ['val.csv:2']),
    (b'a,ant 1 1 2 2 bee 1 1 2 2\nb,ant\n', ['val.csv:1', 'several classes, ant, bee']),
    (b'image,x,y\na.jpg,bee,1\nb.JPG,ant,2\n', ['which column', 'call one class']), (b'a.jpg,b\xe9e\n', ['utf-8'])])
def test_a_table_that_does_not_fit_is_refused(tmp_path, table, words):
    image_folder(tmp_path, {**TRAIN, 'val/a.jpg': b'', 'val/b.JPG': b'', 'val.csv': table})
    refused(tmp_path / 'val.csv', *words, path=tmp_path, split='val')


def test_several_tables_are_refused_and_a_large_one_is_not_read(tmp_path):
    image_folder(tmp_path, {**TRAIN, 'val/a.jpg': b'', 'val_a.csv': b'', 'val_b.csv': b''})
    refused('val_a.csv', 'val_b.csv', 'keep one', path=tmp_path, split='val')
    (tmp_path / 'val_a.csv').unlink()
    with open(tmp_path / 'val_b.csv', 'wb') as file:
        file.truncate(1 << 40)
    refused('val_b.csv', '1,099,511,627,776 bytes', path=tmp_path, split='val')


def test_both_splits_by_tables_number_the_training_classes(tmp_path):
    image_folder(tmp_path, {f'train/{name}.jpg': b'' for name in 'xyz'} | {
        'val/x.jpg': b'', 'train.csv': b'x,10\ny,2\nz,1\n', 'val.csv': b'x,10\n'})
    assert labelled(tmp_path) == {'x.jpg': '10'} and labelled(tmp_path, 'train')['y.jpg'] == '2'
    assert create('folder', tmp_path, 'val').class_names == create('folder', tmp_path).class_names == ('1', '2', '10')


@pytest.mark.parametrize('num_classes,names,labels', [
    (6, tuple('012345'), [0, 2, 5]), (None, ('0', '2', '5'), [0, 1, 2]), (3, ('0', '2', '5'), [0, 1, 2])])
def test_numbers_are_labels_in_a_table_as_they_are_as_folders(tmp_path, num_classes, names, labels):
    image_folder(tmp_path / 'folders', {f'train/{name}/{name}.jpg': b'' for name in '025'})
    image_folder(tmp_path / 'tables', {f'train/{name}.jpg': b'' for name in '025'} | {
        'val/2.jpg': b'', 'train.csv': b'0,0\n2,2\n5,5\n', 'val.csv': b'2,2\n'})
    for kind in ('folders', 'tables'):
        source = create('folder', tmp_path / kind, num_classes=num_classes)
        assert (source.class_names, source.labels.tolist()) == (names, labels), kind
    assert create('folder', tmp_path / 'tables', 'val', num_classes).class_names == names


@pytest.mark.parametrize('file', ['words.txt', 'LOC_synset_mapping.txt'])
def test_ids_that_are_none_of_the_thousand_have_the_words_of_their_data(tmp_path, file, caplog):
    ids = ('n01440764', 'n90000001', 'n99999999')
    image_folder(tmp_path, {f'train/{name}/a.jpg': b'' for name in ids} | {'val/a.jpg': b'', 'val.csv': b'a,n90000001'})
    text = 'n00001740 entity\nn01440764 fish\nn90000001 gazelle,swift\n\nn99999999\n'
    (tmp_path / file).write_text(text.replace(' ', '\t') if file == 'words.txt' else text)
    for split, options in (('train', {}), ('val', {}), ('train', {'exif': True}),
                           ('held', {'holdout': 0.5, 'eval_split': 'held'})):
        if 'holdout' in options:
            (tmp_path / 'val').rename(tmp_path / 'other')
        assert create('folder', tmp_path, split, **options).class_words == {'n90000001': 'gazelle,swift'}
    (tmp_path / file).write_bytes(b'\xff')
    assert not create('folder', tmp_path).class_words and f'{file} cannot be read as text' in caplog.text


def test_a_list_beside_images_is_suggested(tmp_path):
    image_folder(tmp_path, {**TRAIN, 'val/a.jpg': b'', 'val.txt': b'a.jpg 1\n'})
    refused('set config.data.format=list', path=tmp_path, split='val')
