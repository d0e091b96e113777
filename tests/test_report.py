"""Folders of runs become one table, and none is dropped in silence. The folders are made here."""

import copy
import csv
import json
import math
import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from fixtures_commands import called
from runs import ROOT

from configs import digits
from imagenet_jax import record, report
from imagenet_jax.errors import UserError
from imagenet_jax.report import folders, tables

BASE = json.loads(json.dumps(digits.get_config().to_dict()))
RUN = {'train_examples': 1280, 'devices': 2, 'dtype': 'float32', 'parameters': 75290, 'multiply_adds': 765568,
       'class_names': [], 'finished': True}


def made(folder, top1, seed=0, change=(), run=(), last=400, **scores):
    """A run of 400 steps, evaluated halfway at `top1` + 0.1 and at its end; `change`: options by their names."""
    entry = copy.deepcopy(BASE) | {'seed': seed, 'run': RUN | dict(run)}
    for name, value in dict(change).items():
        *sections, leaf = name.split('.')
        (entry[sections[0]] if sections else entry)[leaf] = value
    folder.mkdir(parents=True)
    record.write(folder, entry)
    if top1 is not None:
        scores = {'top1': top1, 'top5': 0.9, **scores}
    found = {f'eval/{name}': value for name, value in scores.items()}
    first = {name: value + 0.1 for name, value in found.items()}
    rows = [{'step': last // 2, 'seconds': 40.0, 'train/loss': 1.5, 'train/images_per_s': 900.0, **first},
            {'step': last, 'seconds': 72.0, 'train/loss': None, 'train/images_per_s': 1100.0, **found}]
    (folder / 'metrics.jsonl').write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    return folder


def table(root, best=False, base=None):
    groups, left_out = report.gather([folders.read(path) for path in folders.find(root)], best)
    chosen = report.choose_base(groups, base)
    return [report.describe(group, chosen) for group in groups], {path.name: why for path, why in left_out}


def test_seeds_are_one_line_with_mean_and_sample_deviation(tmp_path):
    for seed, top1 in enumerate((0.5, 0.52, 0.57)):
        made(tmp_path / 'sweep' / f'seed{seed}', top1, seed)
    (line,), left_out = table(tmp_path)
    assert not left_out and line['n'] == 3 and line['run'] == 'sweep'
    assert line['top-1'] == pytest.approx((53, statistics.stdev((50, 52, 57))))
    assert line['top-5'] == pytest.approx((90, 0))
    assert (line['parameters'], line['MACs'], line['devices x batch'], line['epochs']) == (75290, 765568, '2 x 32', 20)
    assert line['hours'] == 0.02 and line['images/s'] == 1000
    assert table(tmp_path, best=True)[0][0]['top-1'].mean == pytest.approx(63)


def test_what_changes_no_result_parts_no_group(tmp_path):
    made(tmp_path / 'a_seed0', 0.5, 0, {'message': 'one', 'data.threads': 3}, {'git_revision': 'a'})
    made(tmp_path / 'a_seed1', 0.5, 1, {'message': 'two', 'data.threads': 4}, {'git_revision': 'b'})
    made(tmp_path / 'b', 0.5, 0, run={'devices': 4})
    lines, _ = table(tmp_path)
    assert [(line['run'], line['n']) for line in lines] == [('a', 2), ('b', 1)]


def test_a_run_that_lacks_an_option_is_as_one_where_it_is_unset(tmp_path):
    made(tmp_path / 'sweep' / 'seed0', 0.5, 0)
    entry = record.read(made(tmp_path / 'sweep' / 'seed1', 0.6, 1))
    del entry['augment']['lighting']
    record.write(tmp_path / 'sweep' / 'seed1', entry)
    (line,), _ = table(tmp_path)
    assert line['n'] == 2


def test_same_seeds_are_paired_and_others_are_not(tmp_path):
    ours, theirs = (0.6, 0.66, 0.69), (0.5, 0.55, 0.61)
    for seed in range(3):
        made(tmp_path / 'mixup' / f'seed{seed}', ours[seed], seed, {'mix': {'mixup': 0.2}})
        made(tmp_path / 'base' / f'seed{seed}', theirs[seed], seed)
        made(tmp_path / 'other' / f'seed{seed + 1}', ours[seed], seed + 1, {'ema_decay': 0.9})
    lines = {line['run']: line for line in table(tmp_path)[0]}
    assert lines['base']['difference'] == 'base' and lines['base']['tricks'] == []
    assert lines['mixup']['tricks'] == ['mix.mixup=0.2']
    of_pairs = statistics.stdev((10, 11, 8)) / math.sqrt(3)
    assert lines['mixup']['difference'] == pytest.approx((29 / 3, of_pairs, True))
    independent = math.sqrt(statistics.variance((60, 66, 69)) / 3 + statistics.variance((50, 55, 61)) / 3)
    assert lines['other']['difference'] == pytest.approx((29 / 3, independent, False))
    assert tables.cell('difference', lines['mixup']['difference']) == '+9.67 ± 0.88 p'


def test_averaged_weights_are_held_against_the_base_as_it_is(tmp_path):
    """Whose own they are held against where it has some; the raw weights are what they were."""
    for seed in (0, 1):
        made(tmp_path / 'base' / f'seed{seed}', 0.5, seed)
        made(tmp_path / 'ema' / f'seed{seed}', 0.5, seed, {'ema_decay': 0.9}, ema_top1=0.6 + seed / 100)
        made(tmp_path / 'more' / f'seed{seed}', 0.5, seed, {'ema_decay': 0.8}, ema_top1=0.7 + seed / 100)
    base, ema, _ = table(tmp_path)[0]
    assert base['EMA difference'] is None and ema['difference'] == (0, 0, True)
    assert ema['EMA difference'] == pytest.approx((10.5, 0.5, True))
    assert table(tmp_path, base='more')[0][1]['EMA difference'] == pytest.approx((-10, 0, True))


@pytest.mark.parametrize(('value', 'error', 'real', 'shown'), [
    (1.9, 1.0, False, 'none ± 1.00'), (-2.1, 1.0, True, '-2.10 ± 1.00'), (0.0, 0.0, False, 'none ± 0.00'),
    (9.0, None, None, '? (one seed)')])
def test_a_difference_is_told_from_two_standard_errors_on(value, error, real, shown):
    found = report.Difference(value, error, False)
    assert found.real is real and tables.cell('difference', found) == shown


def test_a_single_seed_has_neither_deviation_nor_verdict(tmp_path):
    made(tmp_path / 'a', 0.5)
    made(tmp_path / 'b', 0.9, change={'ema_decay': 0.9})
    lines, _ = table(tmp_path)
    assert lines[1]['top-1'].deviation is None and lines[1]['difference'] == (pytest.approx(40), None, False)


def test_the_base_is_the_one_named_or_called_base_or_first(tmp_path):
    for name, decay in (('x/a', 0.1), ('x/base', 0.0), ('y/a', 0.2)):
        made(tmp_path / name, 0.5, change={'ema_decay': decay})
    groups, _ = report.gather([folders.read(path) for path in folders.find(tmp_path)], False)
    assert [group.name for group in groups] == ['x/a', 'x/base', 'y/a']
    assert report.choose_base(groups, None).name == 'x/base' and report.choose_base(groups, 'y/a').name == 'y/a'
    assert report.choose_base(groups[::2], None).name == 'x/a'
    with pytest.raises(UserError, match='--base a may be x/a or y/a: give the whole name'):
        report.choose_base(groups, 'a')
    with pytest.raises(UserError, match="unknown group of runs 'bse'; did you mean"):
        report.choose_base(groups, 'bse')


def test_several_labels_and_averaged_weights(tmp_path):
    made(tmp_path / 'voc', None, mean_average_precision=0.8, ema_mean_average_precision=0.85)
    made(tmp_path / 'digits', 0.5, change={'epochs': 40})
    lines, _ = table(tmp_path, base='voc')
    assert lines[1]['mAP'].mean == 80 and lines[1]['EMA mAP'].mean == 85 and 'top-1' not in lines[1]
    assert lines[0]['difference'] is None  # no score in common
    assert tables.titles(lines)[-6:] == ['mAP', 'EMA mAP', 'n', 'difference', 'hours', 'images/s']


def test_every_run_without_a_result_is_listed_with_the_reason(tmp_path):
    made(tmp_path / 'good', 0.5)
    made(tmp_path / 'again', 0.5)
    made(tmp_path / 'stopped', 0.5, 1, run={'finished': False}, last=300)
    made(tmp_path / 'failed', 0.5, 2, run={'finished': False}, last=300)
    (tmp_path / 'failed' / 'train.log').write_text(
        '\n$ python main.py\nerror: of an earlier start\n\n$ python main.py\nerror: no more room\n  and a hint\n')
    (made(tmp_path / 'early', 0.5, 3, last=100) / 'metrics.jsonl').write_text('{"step": 100}\n')
    (made(tmp_path / 'nan', 0.5, 4) / 'metrics.jsonl').write_text('{"step": 400, "eval/top1": null}\n')
    for name, text in (('damaged', '{"seed":'), ('import', '{"model": {}, "loss": {}}'), ('other', '[1]')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'config.json').write_text(text)
    (tmp_path / 'never').mkdir()
    (tmp_path / 'never' / 'train.log').write_text('error: no folder data\n')
    (made(tmp_path / 'bytes', 0.5, 5) / 'metrics.jsonl').write_bytes(b'\xff\xfe\n')
    lines, left_out = table(tmp_path)
    assert [line['run'] for line in lines] == ['again']
    assert 'config.json is damaged' in left_out.pop('damaged')
    assert 'config.json is damaged' in left_out.pop('other')
    assert left_out == {
        'good': f'the same config and seed as {tmp_path / "again"}', 'stopped': 'not finished: step 300 of 400',
        'failed': 'not finished: step 300 of 400; train.log ends: error: no more room',
        'early': 'finished, but never evaluated', 'bytes': 'finished, but never evaluated',
        'nan': 'its evaluation holds no finite score',
        'import': "config.json is no run's: it may be an import's",
        'never': 'no config.json; train.log ends: error: no folder data'}


def test_earlier_versions_say_by_their_last_step_that_they_are_finished(tmp_path):
    run = {'finished': False}
    for name, last in (('whole', 400), ('part', 399)):
        entry = record.read(made(tmp_path / name, 0.5, run=run, last=last))
        del entry['run']['parameters'], entry['run']['multiply_adds']
        record.write(tmp_path / name, entry)
    lines, left_out = table(tmp_path)
    assert [line['run'] for line in lines] == ['whole'] and left_out == {'part': 'not finished: step 399 of 400'}
    assert tables.cell('MACs', lines[0]['MACs']) == '-'


def test_markdown_has_once_what_is_the_same_and_fits(tmp_path):
    many = {'ema_decay': 0.9, 'mix.mixup': 0.2, 'normalize.mean': [0.5, 0.4], 'augment.flip': True}
    for seed in (0, 1):
        made(tmp_path / 'base' / f'seed{seed}', 0.5 + seed / 100, seed)
        made(tmp_path / 'all' / f'seed{seed}', 0.6 + seed / 100, seed, many)
    lines = table(tmp_path)[0]
    assert lines[0]['tricks'][-1] == 'normalize.mean=(0.5, 0.4)'
    same, _, *rows = tables.markdown(lines).splitlines()
    assert same == ('The same in all: model resnet20_cifar, epochs 20, dtype float32, devices x batch 2 x 32, '
                    'learning rate 0.1, parameters 75.3k, MACs 766k, n 2.')
    assert rows == [
        '| run  | tricks                                   | top-1        | top-5        | difference      '
        '| hours | images/s |',
        '| ---- | ---------------------------------------- | ------------ | ------------ | --------------- '
        '| ----- | -------- |',
        '| all  | augment.flip=True, ema_decay=0.9, 2 more | 60.50 ± 0.71 | 90.00 ± 0.00 | +10.00 ± 0.00 p '
        '| 0.02  | 1,000    |',
        '| base | -                                        | 50.50 ± 0.71 | 90.00 ± 0.00 | base            '
        '| 0.02  | 1,000    |']


def test_command_writes_csv_and_a_page_that_needs_no_network(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        made(tmp_path / 'runs' / 'base' / f'seed{seed}', 0.5 + seed / 100, seed)
        made(tmp_path / 'runs' / '<b>' / f'seed{seed}', 0.503 + seed / 50, seed, {'ema_decay': 0.9})
    code, out = called(monkeypatch, capsys, 'report', tmp_path / 'runs', '--csv', tmp_path / 'x.csv', '--html',
                       tmp_path / 'new' / 'x.html')
    assert not code and '| none ± ' in out and 'the last evaluation of each run' in out
    with (tmp_path / 'x.csv').open() as file:
        first, base = csv.DictReader(file)
    numbers = [float(first[title]) for title in ('difference', 'difference standard error')]
    assert numbers == pytest.approx([0.8, 0.5])
    assert first['difference paired'] == 'True' and first['tricks'] == 'ema_decay=0.9' and base['difference'] == ''
    assert float(base['top-1 deviation']) == pytest.approx(statistics.stdev((50, 51)))
    page = (tmp_path / 'new' / 'x.html').read_text()
    assert not re.search(r'https?:|src=|href=', page) and '<b>' not in page and '&lt;b&gt;' in page
    pictures = [xml.etree.ElementTree.fromstring(each) for each in re.findall(r'<svg.*?</svg>', page)]
    assert [len(each.findall('polyline')) for each in pictures] == [4, 4, 4]  # top-1, top-5 and the loss of each run
    x, y = zip(*(map(float, point.split(',')) for point in pictures[0][-1].get('points').split()), strict=True)
    assert x[0] < x[1] and y[0] < y[1]  # a score that falls goes down, and down is up


@pytest.mark.parametrize(('arguments', 'message'), [
    (('/nowhere',), 'no folder /nowhere'), (('.',), 'no run in .: nothing there has a config.json')])
def test_a_wrong_folder_is_explained(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in called(monkeypatch, capsys, 'report', *arguments)[0]


def test_nothing_that_takes_long_is_imported():
    code = ('import sys; import imagenet_jax.commands.report, imagenet_jax.commands.sweep\n'
            'print([name for name in ("jax", "flax", "orbax", "tensorflow", "cv2", "scipy", "matplotlib") '
            'if name in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
