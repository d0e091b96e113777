"""What verify finds in small data sets, good and broken."""

import io
import json
import os
import sys

import numpy as np
import pytest
from fixtures_commands import called
from fixtures_images import class_tree, encode, image_folder, jpeg, parquet_file, png_claiming, scene
from fixtures_sources import Pixels, folder
from PIL import Image

from imagenet_jax import inspection, preview, sources
from imagenet_jax.command_line import running


@pytest.fixture
def damaged(tmp_path):
    """A tree with everything that verify looks for."""
    cmyk = encode(Image.fromarray(scene(9, 7)).convert('CMYK'))
    return image_folder(tmp_path, {
        'train/ant/0.jpg': jpeg(0), 'train/ant/1.jpg': jpeg(1, 20, 30), 'train/ant/2.png': encode(scene(5, 6), 'PNG'),
        'train/bee/0.jpg': jpeg(1, 20, 30), 'train/bee/1.jpg': b'', 'train/bee/2.jpg': jpeg(2)[:200],
        'train/bee/3.jpg': b'', 'train/bee/4.jpg': encode(scene(8, 8)[..., 0]), 'train/bee/5.jpg': cmyk,
        'train/bee/6.png': png_claiming(60_000, 60_000),
        'val/ant/0.jpg': jpeg(9), 'val/ant/1.jpg': jpeg(0), 'val/cat/0.jpg': jpeg(9), 'val/cat/1.jpg': jpeg(9)})


@pytest.mark.parametrize('workers', [1, 2])
def test_verify_finds_what_is_wrong(damaged, workers, monkeypatch):
    monkeypatch.setattr(inspection, '_CHUNK', 2)
    report = inspection.verify({'train': folder(damaged), 'val': folder(damaged, 'val')}, workers)
    train, val = report['splits']['train'], report['splits']['val']
    assert [sample['key'] for sample in train['bad']] == ['bee/1.jpg', 'bee/2.jpg', 'bee/3.jpg', 'bee/6.png']
    assert 'exceeds limit' in train['bad'][3]['reason'] and '0 bytes' in train['bad'][0]['reason']
    assert train['images'] == 10 and train['classes'] == {'ant': 3, 'bee': 7}
    assert train['class_size'] == {'min': 3, 'q05': 3.2, 'median': 5, 'q95': 6.8, 'max': 7}
    assert train['missing_classes'] == ['cat'] and val['missing_classes'] == ['bee']
    assert train['kinds'] == {'JPEG RGB': 3, 'PNG RGB': 1, 'JPEG grey': 1, 'JPEG CMYK': 1}
    assert (train['height']['min'], train['height']['median'], train['height']['max']) == (5, 9.5, 20)
    assert (train['width']['min'], train['width']['median'], train['width']['max']) == (6, 10, 30)
    assert val['bad'] == [] and val['kinds'] == {'JPEG RGB': 4}
    copies = report['duplicates']
    assert copies['within_split'] == {'train': 1, 'val': 2}
    assert copies['across_splits'] == 1 and copies['across_classes'] == 2
    assert [[(place['split'], place['key'], place['class']) for place in group] for group in copies['groups']] == [
        [('train', 'ant/0.jpg', 'ant'), ('val', 'ant/1.jpg', 'ant')],
        [('train', 'ant/1.jpg', 'ant'), ('train', 'bee/0.jpg', 'bee')],
        [('val', 'ant/0.jpg', 'ant'), ('val', 'cat/0.jpg', 'cat'), ('val', 'cat/1.jpg', 'cat')]]
    assert not report['same_classes'] and not report['clean']


def test_clean_means_readable_unshared_and_numbered_alike(tmp_path):
    def clean(*splits):
        return inspection.verify({split: folder(tmp_path, split) for split in splits})['clean']
    class_tree(tmp_path, split='train')
    image_folder(tmp_path, {f'val/{name}/{i}.jpg': jpeg(50 + i) for i, name in enumerate(('ant', 'bee', 'cat'))})
    image_folder(tmp_path, {'val/cat/again.jpg': jpeg(52)})
    assert clean('train', 'val')  # a copy inside a split is no fault
    image_folder(tmp_path, {'other/ant/0.jpg': jpeg(90), 'other/bee/0.jpg': jpeg(91)})
    assert clean('other') and not clean('train', 'other')
    image_folder(tmp_path, {'val/ant/leaked.jpg': jpeg(3)})
    assert clean('val') and not clean('train', 'val')
    image_folder(tmp_path, {'train/ant/torn.jpg': jpeg()[:50]})
    assert not clean('train')


def test_parquet_and_pixels(tmp_path):
    parquet_file(tmp_path / 'train-0.parquet', [jpeg(0), None, jpeg(0), jpeg(3)], [0, 1, 1, 3], ('a', 'b', 'a', 'c'))
    report = inspection.verify({'train': sources.create('parquet', str(tmp_path), 'train')})
    assert [sample['key'] for sample in report['splits']['train']['bad']] == ['train-0.parquet:0:1']
    assert report['splits']['train']['classes'] == {'0 a': 1, '1 b': 2, '2 a': 0, '3 c': 1}
    assert report['duplicates']['within_split'] == {'train': 1} and report['duplicates']['across_classes'] == 1
    pixels = inspection.verify({split: sources.create('digits', '', split) for split in ('train', 'test')})
    assert pixels['clean'] and pixels['splits']['train']['kinds'] == {'pixels grey': 1437}
    assert sum(pixels['splits']['test']['classes'].values()) == 360


def test_an_image_of_several_classes_counts_in_each():
    labels = np.array([[1, 0, 1], [0, np.nan, 1], [0, 0, 1]], np.float32)
    images = [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)]
    report = inspection.verify({'train': Pixels(images, labels, ('ant', 'bee', 'cat'))})
    assert report['splits']['train']['classes'] == {'ant': 1, 'bee': 0, 'cat': 3}
    assert report['splits']['train']['missing_classes'] == ['bee']
    assert [[(place['key'], place['class']) for place in group] for group in report['duplicates']['groups']] == [
        [('0', 'ant, cat'), ('2', 'cat')]]


def test_verify_command(damaged, monkeypatch, capsys):
    where = ('--format', 'folder', '--path', damaged)
    code, out = called(monkeypatch, capsys, 'verify', *where, '--split', 'train', '--split', 'val',
                       '--output', damaged / 'new' / 'report.json')
    assert code == 1
    for line in ('train: 10 images, 4 unreadable', '2 classes of 3 to 7 images, median 5', 'bee/1.jpg: 0 bytes',
                 'in several splits 1, under several classes 2; more than once within train 1, val 2',
                 'train:ant/0.jpg (ant) = val:ant/1.jpg (ant)', '1 classes without images: cat', 'not clean'):
        assert line in out
    report = json.loads((damaged / 'new' / 'report.json').read_text())
    code, out = called(monkeypatch, capsys, 'verify', *where, '--split', 'train', '--split', 'val', '--json')
    assert code == 1 and json.loads(out) == report
    code, out = called(monkeypatch, capsys, 'verify', *where, '--split', 'val')
    assert code == 0 and out.endswith('\nclean\n')
    code, _ = called(monkeypatch, capsys, 'verify', *where, '--split', 'test')
    assert code.startswith(f'error: no folder {damaged}/test')
    (damaged / 'file').write_text('')
    code, _ = called(monkeypatch, capsys, 'verify', *where, '--split', 'val', '--output', damaged / 'file' / 'x')
    assert code.startswith('error: cannot write')


def test_names_that_are_no_text_are_shown(tmp_path, monkeypatch):
    """In a terminal's encoding; pytest's own output would take anything."""
    name = os.fsdecode(b'\xff\xfe.jpg')
    image_folder(tmp_path, {f'train/ant/{name}': jpeg(), f'train/bee/{name}': b''})
    out = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(out, 'ascii'))
    monkeypatch.setattr(sys, 'argv', ['verify', '--format', 'folder', '--path', str(tmp_path), '--split', 'train'])
    with pytest.raises(SystemExit) as caught:
        running.run('verify')
    assert caught.value.code == 1 and b'bee/\\udcff\\udcfe.jpg: 0 bytes' in out.getvalue()
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert preview.sheet([preview.Pair(pixels, pixels, name, name)], name).width
