"""One table of many trained models: which are meant, what becomes of each, and how a table goes on."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import class_tree
from fixtures_trained import CLASSES, make_run

from imagenet_jax import record, trained
from imagenet_jax.checkpoint import load_variables, save_variables
from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.task import Result
from imagenet_jax.use import table
from imagenet_jax.use.classifier import Classifier


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A folder of two runs that differ in their answers, one for other classes, and one that saved nothing."""
    root = tmp_path_factory.mktemp('root')
    class_tree(root / 'data', 30, split='val')
    first = make_run(root / 'runs' / 'a' / 'ä b', {'format': 'folder', 'path': str(root / 'data')})
    entry, (_, variables) = record.read(first), load_variables(first)
    variables['params']['linear']['kernel'] = -variables['params']['linear']['kernel']
    for name, classes in (('z', CLASSES), ('other', ('x', 'y', 'z'))):
        save_variables(root / 'runs' / name, variables)
        record.write(root / 'runs' / name, {**entry, 'run': {'class_names': list(classes)}})
    record.write(root / 'runs' / 'unsaved', entry)
    (root / 'runs' / 'latest').symlink_to(root / 'runs' / 'z')
    (root / 'runs' / 'train.log').write_text('of a sweep')
    return root


def test_what_paths_mean(root, monkeypatch):
    runs = root / 'runs'
    assert table.asked_for(runs) and table.asked_for(root) and table.asked_for(runs / 'z*')
    assert not any(map(table.asked_for, (runs / 'z', root / 'data', root / 'none')))
    assert list(table.find([runs])) == ['a/ä b', 'other', 'unsaved', 'z']  # latest is z
    assert list(table.find([root, runs / 'z'])) == ['runs/a/ä b', 'runs/other', 'runs/unsaved', 'runs/z']
    assert list(table.find([runs / '[az]*'])) == ['a/ä b', 'z']
    assert list(table.find([runs / 'z'])) == ['z']
    monkeypatch.chdir(runs / 'a')
    assert list(table.find([table.Path('.'), table.Path('../other')])) == ['a/ä b', 'other']
    for path in (root / 'data', root / 'none', root / 'no*'):
        with pytest.raises(UserError, match='holds no run and no import'):
            table.find([path])


def rows_of(out):
    return {row['name']: row for row in json.loads(out)['results']}


def test_the_command(root, tmp_path, monkeypatch, capsys):
    """Each row has what `evaluate` says of that run; what cannot be measured is skipped; again, nothing is measured."""
    file = tmp_path / 'r.csv'
    code, out = called(monkeypatch, capsys, 'evaluate', '--checkpoint', root / 'runs', '--csv', file, '--json')
    rows, skipped = rows_of(out), json.loads(out)['skipped']
    assert code == 1 and rows.keys() == {'a/ä b', 'z'} and skipped.keys() == {'other', 'unsaved'}
    assert "'ant', 'bee', 'cat'" in skipped['other'] and 'must be the folder of a run' in skipped['unsaved']
    head, *lines = file.read_text().splitlines()
    assert head.startswith('model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,')
    _, own = called(monkeypatch, capsys, 'evaluate', '--checkpoint', root / 'runs' / 'z', '--json')
    row, own = rows['z'], json.loads(own)
    assert row['top1'] == pytest.approx(100 * own['top1'], abs=1e-3) and row['top1_err'] == pytest.approx(
        100 - row['top1'])
    assert row['loss'] == pytest.approx(own['loss'], abs=1e-6) and row['loss'] != rows['a/ä b']['loss']
    variables = load_variables(root / 'runs' / 'z')[1]['params']
    assert row['param_count'] == sum(leaf.size for leaf in jax.tree.leaves(variables)) / 1e6
    assert (row['model'], row['img_size'], row['crop_pct'], row['images']) == ('resnet8_cifar', 8, 0.889, 30)
    assert [line.split(',')[9] for line in lines] == list(rows) == sorted(rows, key=lambda name: -rows[name]['top1'])
    monkeypatch.setattr('imagenet_jax.commands.evaluate._evaluator', None)
    code, out = called(monkeypatch, capsys, 'evaluate', '--checkpoint', root / 'runs', '--csv', file)
    assert code == 1 and all(f'{row["top1"]:.2f} {row["top1_err"]:.2f} 100.00' in out for row in rows.values())
    assert file.read_text().splitlines() == [head, *lines] and max(map(len, out.splitlines())) <= 80


def prepared(root, name):
    """A run and a split, with nothing behind it."""
    data = SimpleNamespace(format='folder', path=str(root / 'data'), options={}, holdout=0.0)
    return table.Prepared(Classifier(trained.load(root / 'runs' / name)), data, 'val', range(30))


def test_what_changes_a_result_is_measured_anew(root):
    one = prepared(root, 'z')
    z, trained_z = table.fingerprint(one), one.classifier.members[0]
    assert z == table.fingerprint(prepared(root, 'z'))
    changes = ({'view': EvalView(8, 8)}, {'view': EvalView(8, 9, views='ten_crop')},
               {'model': trained_z.model.clone(dtype='bfloat16')},
               {'normalize': Normalize(mean=(0.5,))}, {'exif': True}, {'class_names': ('a', 'b', 'c')})
    others = [prepared(root, 'a/ä b'), one._replace(split='test'), one._replace(source=range(31)),
              *(one._replace(classifier=Classifier(dataclasses.replace(trained_z, **change))) for change in changes)]
    assert len({z, *map(table.fingerprint, others)}) == 10


def test_best_first_and_kept_as_they_come(root, tmp_path):
    """A model that is interrupted loses none of those before it; models without top-1 come after those that have it."""
    scores = {'a': {'top1': 0.25, 'top5': 1.0, 'loss': float('nan')}, 'b': {'mean_average_precision': 0.5, 'loss': 1.0},
              'c': {'top1': 0.5, 'top5': 1.0, 'loss': 1.0}, 'd': None}
    one = prepared(root, 'z')

    def evaluate(given, rate):
        list(rate([({'mask': np.ones(2)}, {})]))
        if given.split == 'd':
            raise KeyboardInterrupt
        return Result({**scores[given.split], 'bad_samples': 0}, {})

    def measured(names, path):
        return table.measured({name: name for name in names}, lambda name: one._replace(split=name), evaluate, path)
    with pytest.raises(KeyboardInterrupt):
        measured('abd', tmp_path / 'r.csv')
    rows, skipped = measured('abc', tmp_path / 'r.csv')
    assert [row['name'] for row in rows] == ['c', 'a', 'b'] and not skipped and rows[1]['loss'] is None
    shown = table.text(rows).splitlines()
    assert shown[0].split() == ['name', 'model', 'params', 'MACs', 'size', 'top-1', 'error', 'top-5', 'mAP', 'img/s']
    assert shown[3].split()[:6] == ['b', 'resnet8_cifar', '74.8k', '765k', '8', '0.5000']
    assert 'top-1' not in table.text(rows[2:]) and 'mAP' not in table.text(rows[:2])


def test_the_first_batch_is_not_timed():
    """It waits for the compiler. One clock tick a question."""
    ticks = iter(range(100))
    rate = table.Rate(clock=lambda: next(ticks))
    batches = [({'mask': np.array([1, 1, n])}, {}) for n in (1, 1, 0)]
    assert list(rate(batches)) == batches
    assert rate.per_second() == 5  # images of the second and third batch, in a tick
    rate = table.Rate(clock=lambda: next(ticks))
    list(rate(batches[:1]))
    assert rate.per_second() == 3
