"""What `evaluate` writes: a row an image, the confusion matrix, pairs and pictures; against one image at a time."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures_commands import called
from fixtures_images import class_tree, image_folder
from fixtures_sources import Pixels
from fixtures_trained import CLASSES, make_run
from PIL import Image
from sklearn.metrics import confusion_matrix

from imagenet_jax.errors import UserError
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.metrics.per_class import most_confused
from imagenet_jax.use import classifier, image_table
from imagenet_jax.use.real_labels import RealLabels


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run on 31 images, one unreadable, in a folder whose names are no ASCII."""
    root = tmp_path_factory.mktemp('fünf')
    class_tree(root / 'data', 30, split='val')
    image_folder(root / 'data', {'val/bee/zürn.jpg': b'torn'})
    return make_run(root / 'run', {'format': 'folder', 'path': str(root / 'data')})


def test_everything_in_one_pass(run, tmp_path, monkeypatch, capsys):
    files = {name: tmp_path / 'new' / name for name in ('all.parquet', 'c.csv', 'c.png', 'p.png', 'r.png')}
    code, out = called(
        monkeypatch, capsys, 'evaluate', '--checkpoint', run, '--by-image', files['all.parquet'], '--confusion',
        files['c.csv'], '--confusion', files['c.png'], '--pairs', files['p.png'], '--reliability', files['r.png'],
        '--top', 2, '--batch-size', 8, '--json')
    assert code is None and sorted(path.name for path in (tmp_path / 'new').iterdir()) == sorted(files)
    found, rows = json.loads(out), pq.read_table(files['all.parquet']).to_pylist()
    keys, images = [row['key'] for row in rows], run.parent / 'data' / 'val'
    assert sorted(keys) == sorted(str(path.relative_to(images)) for path in images.rglob('*.*')) and len(keys) == 31
    answers = dict(zip(keys, classifier.load(run).answers([images / key for key in keys], 8), strict=True))
    for row in rows:
        said, own = answers[row['key']], CLASSES.index(row['key'].split('/')[0])
        assert (row['label'], row['label_name']) == (own, CLASSES[own])
        if isinstance(said, str):
            assert row['key'] == 'bee/zürn.jpg' and row['problem'] == 'unreadable' and row['correct'] is False
            assert {row[name] for name in ('rank', 'class_1', 'name_2', 'probability_1')} == {None}
            continue
        order = np.argsort(-said)
        assert [row['class_1'], row['class_2'], row['name_1']] == [order[0], order[1], CLASSES[order[0]]]
        assert [row['probability_1'], row['probability_2']] == pytest.approx(said[order[:2]].tolist(), abs=1e-5)
        assert (row['rank'], row['correct']) == (1 + order.tolist().index(own), order[0] == own)
        assert row['problem'] is None and 'class_3' not in row
    assert found['top1'] == pytest.approx(np.mean([row['correct'] for row in rows])) and found['bad_samples'] == 1
    assert {'macro_f1', 'mean_class_accuracy', 'expected_calibration_error', 'class_accuracy'} <= found.keys()
    head, *table = csv.reader(files['c.csv'].open(encoding='utf-8'))
    assert head == ['label', *CLASSES] and [row[0] for row in table] == list(CLASSES)
    answered = [row for row in rows if row['problem'] is None]
    expected = confusion_matrix([row['label'] for row in answered], [row['class_1'] for row in answered])
    assert [[int(cell) for cell in row[1:]] for row in table] == expected.tolist()
    worst = max((expected[i, j], -i, -j) for i in range(3) for j in range(3) if i != j)
    assert found['most_confused'][0] == {'label': CLASSES[-worst[1]], 'predicted': CLASSES[-worst[2]],
                                         'images': worst[0], 'of': expected[-worst[1]].sum()}
    assert all(Image.open(path).format == 'PNG' for name, path in files.items() if name.endswith('.png'))


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--by-image', 'x.txt'), 'x.txt: name a file that ends in .parquet or .csv'),
    (('--by-image', 'x'), 'ends in .parquet or .csv'), (('--confusion', 'x.jpg'), 'ends in .png or .csv'),
    (('--by-image', 'folder.csv'), 'folder.csv: a folder has that name'),
    (('--by-image', 'file/x.csv'), 'cannot write file/x.csv'), (('--top', 3), '--by-image: give that too'),
    (('--confusion', 'x.csv', '--by-image', './x.csv'), '--confusion and --by-image name one file'),
    (('--robustness', '.', '--by-image', 'x.csv'), '--by-image is for a split'),
    (('--robustness', '.', '--split', 'val'), '--split is for a split'), (('--robustness', 'no'), 'no does not exist'),
    (('--real-labels', 'file'), 'file cannot be read as ReaL labels')])
def test_wrong_use_is_refused_before_anything_is_measured(run, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder.csv').mkdir()
    (tmp_path / 'file').write_text('')
    code, _ = called(monkeypatch, capsys, 'evaluate', '--checkpoint', run, *arguments)
    assert message in code and not list(tmp_path.glob('*.tmp')) and not (tmp_path / 'x.csv').exists()


def rows_of(classes, rank, readable=True):
    count = len(classes)
    return {'index': np.arange(count)[::-1], 'classes': np.array(classes)[::-1], 'rank': np.array(rank)[::-1],
            'probabilities': np.full((count, len(classes[0])), 0.25, np.float32),
            'readable': np.full(count, readable)}


def test_several_classes_an_image_and_names_that_are_no_text(tmp_path):
    source = Pixels([None] * 3, np.array([[1, 0, 1], [0, 0, np.nan], [0, 1, 0]], np.float32))
    source.key = lambda index: f'a,"{index}\udcff'
    made = image_table.table(source, Result({}, {}, images=rows_of([[2, 1], [0, 1], [-1, -1]], [1, 0, 0])), 'xyz')
    assert made['label'].to_pylist() == [[0, 2], [], [1]] and made['label_name'].to_pylist() == [['x', 'z'], [], ['y']]
    assert made['correct'].to_pylist() == [True, None, False] and made['rank'].to_pylist() == [1, None, None]
    assert made['problem'].to_pylist() == [None, None, 'not finite']
    image_table.write(tmp_path / 'a.csv', made)
    first, _, last = csv.DictReader((tmp_path / 'a.csv').open())
    assert first['key'] == 'a,"0\\udcff' and first['label'] == '[0, 2]' and first['label_name'] == '["x", "z"]'
    assert first['name_1'] == 'z' and first['probability_2'] == '0.25' and last['class_1'] == ''


def test_equal_pairs_go_by_number():
    matrix = np.array([[9, 2, 0], [1, 9, 2], [0, 3, 9]])
    assert most_confused(matrix, 3) == [(2, 1, 3), (0, 1, 2), (1, 2, 2)]
    assert most_confused(np.eye(3, dtype=int), 3) == [] and len(most_confused(matrix, 9)) == 4


# --- ReaL labels


def validation(numbers):
    source = Pixels([None] * len(numbers), np.zeros(len(numbers), np.int32))
    source.key = lambda index: f'n01440764/ILSVRC2012_val_{numbers[index]:08d}.JPEG'
    return source


def test_any_of_an_images_real_labels_is_right(tmp_path):
    """By the images' own numbers, in the classes' own order; no label: left out; no answer: wrong."""
    (tmp_path / 'real.json').write_text(json.dumps([[], [3, 5], [7], [1], [2], [999]]))
    names = [str(number) for number in range(1000)]
    names[5], names[0] = '0', '5'
    real = RealLabels(tmp_path / 'real.json', validation([3, 2, 1, 4, 6]), names, 1000)
    result = Result({}, {}, images=rows_of([[7], [0], [9], [-1], [0]], [1] * 5))
    assert real.scalars(result) == {'real_top1': 2 / 4, 'real_images': 4}


@pytest.mark.parametrize(('text', 'numbers', 'classes', 'message'), [
    ('[[1000]]', [1], 1000, 'holds no ReaL labels'), ('{}', [1], 1000, 'holds no ReaL labels'),
    ('[[0]]', [2], 1000, 'ILSVRC2012_val_00000002'), ('[[]]', [1], 1000, 'no label for any of the 1 images'),
    ('[[0]]', [1], 10, '10 outputs without names'), ('[[0', [1], 1000, 'cannot be read')])
def test_other_files_images_and_models_are_refused(text, numbers, classes, message, tmp_path):
    (tmp_path / 'real.json').write_text(text)
    with pytest.raises(UserError, match=message):
        RealLabels(tmp_path / 'real.json', validation(numbers), (), classes)
