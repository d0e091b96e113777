"""What verify, stats and preview find in real small data sets, good and broken."""

import io
import json
import logging
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from fixtures_images import class_tree, encode, image_folder, jpeg, parquet_file, png_claiming, scene
from PIL import Image
from runs import ROOT, environment

from configs import digits
from imagenet_jax import experiment, input_pipeline, inspection, preview, sources
from imagenet_jax.commands import preview as preview_command
from imagenet_jax.commands import recipe
from imagenet_jax.commands import stats as stats_command
from imagenet_jax.commands import verify as verify_command
from imagenet_jax.errors import UserError
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.crops import Pad
from imagenet_jax.images.decode import decode
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView


@pytest.fixture(autouse=True)
def log():
    """Commands called in this process set the log up as for a terminal."""
    ours = logging.getLogger('imagenet_jax')
    handlers, level, propagate = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = handlers, propagate
    ours.setLevel(level)


def folder(root, split='train'):
    return sources.create('folder', str(root), split)


def called(monkeypatch, capsys, command, *arguments):
    """(exit code, stdout, what it says on leaving) of a command."""
    monkeypatch.setattr(sys, 'argv', ['prog', *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return caught.value.code, capsys.readouterr().out


def ran(*arguments, code=0):
    """Standard output and error of a command in its own process."""
    done = subprocess.run([sys.executable, '-m', 'imagenet_jax', *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, env=environment())
    assert done.returncode == code, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


# verify


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


class Pixels(sources.Source):
    """Arrays, with labels of any form."""

    def __init__(self, images, labels, class_names=()):
        self.images, self.labels, self.class_names = images, labels, class_names

    def image(self, index):
        return self.images[index]

    def key(self, index):
        return str(index)


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
    code, out = called(monkeypatch, capsys, verify_command, *where, '--split', 'train', '--split', 'val',
                       '--output', damaged / 'new' / 'report.json')
    assert code == 1
    for line in ('train: 10 images, 4 unreadable', '2 classes of 3 to 7 images, median 5', 'bee/1.jpg: 0 bytes',
                 'in several splits 1, under several classes 2; more than once within train 1, val 2',
                 'train:ant/0.jpg (ant) = val:ant/1.jpg (ant)', '1 classes without images: cat', 'not clean'):
        assert line in out
    report = json.loads((damaged / 'new' / 'report.json').read_text())
    code, out = called(monkeypatch, capsys, verify_command, *where, '--split', 'train', '--split', 'val', '--json')
    assert code == 1 and json.loads(out) == report
    code, out = called(monkeypatch, capsys, verify_command, *where, '--split', 'val')
    assert code == 0 and out.endswith('\nclean\n')
    code, _ = called(monkeypatch, capsys, verify_command, *where, '--split', 'test')
    assert code.startswith(f'error: no folder {damaged}/test')
    (damaged / 'file').write_text('')
    code, _ = called(monkeypatch, capsys, verify_command, *where, '--split', 'val', '--output', damaged / 'file' / 'x')
    assert code.startswith('error: cannot write')


def test_names_that_are_no_text_are_shown(tmp_path, monkeypatch):
    """In a terminal's encoding; pytest's own output would take anything."""
    name = os.fsdecode(b'\xff\xfe.jpg')
    image_folder(tmp_path, {f'train/ant/{name}': jpeg(), f'train/bee/{name}': b''})
    out = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(out, 'ascii'))
    monkeypatch.setattr(sys, 'argv', ['verify', '--format', 'folder', '--path', str(tmp_path), '--split', 'train'])
    with pytest.raises(SystemExit) as caught:
        verify_command.main()
    assert caught.value.code == 1 and b'bee/\\udcff\\udcfe.jpg: 0 bytes' in out.getvalue()
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert preview.sheet([preview.Pair(pixels, pixels, name, name)], name).width


# stats


def all_pixels(images):
    return np.concatenate([decode(image).reshape(-1, 3) for image in images]) / 255


@pytest.mark.parametrize('workers', [1, 2])
def test_statistics_are_those_of_all_pixels(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(inspection, '_BLOCK', 7)
    monkeypatch.setattr(inspection, '_CHUNK', 2)
    images = [jpeg(i, 10 + i, 30 - i) for i in range(9)] + [encode(scene(9, 9)[..., 0])]
    image_folder(tmp_path, {f'train/{"ab"[i % 2]}/{i}.jpg': image for i, image in enumerate(images)})
    found, pixels = inspection.statistics(folder(tmp_path), workers=workers), all_pixels(images)
    assert found['images'] == 10 and found['pixels'] == len(pixels) and found['bad'] == []
    np.testing.assert_allclose(found['mean'], pixels.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found['std'], pixels.std(0), rtol=1e-12)
    np.testing.assert_allclose(found['covariance'], np.cov(pixels.T, bias=True), rtol=1e-12)
    values, vectors = np.array(found['eigenvalues']), np.array(found['eigenvectors'])
    assert values[0] > values[1] > values[2] > 0
    np.testing.assert_allclose(np.array(found['covariance']) @ vectors, vectors * values, atol=1e-15)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-14)
    assert (vectors[np.abs(vectors).argmax(0), range(3)] > 0).all()


def test_statistics_do_not_depend_on_workers(tmp_path):
    source = folder(class_tree(tmp_path, 40))
    assert inspection.statistics(source, workers=1) == inspection.statistics(source, workers=2)


def test_statistics_of_known_colours():
    images = [np.full((2, 2, 3), (255, 0, 51), np.uint8), np.full((1, 4, 3), (0, 0, 51), np.uint8)]
    found = inspection.statistics(Pixels(images, np.zeros(2, np.int32)))
    assert found['mean'] == [.5, 0, .2] and found['std'] == [.5, 0, 0]
    assert found['covariance'] == [[.25, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found['eigenvalues'] == [.25, 0, 0] and np.array(found['eigenvectors'])[:, 0].tolist() == [1, 0, 0]


def test_statistics_of_a_view_weigh_images_alike(tmp_path):
    images = [jpeg(0, 12, 12), jpeg(1, 60, 40)]
    image_folder(tmp_path, {f'train/a/{i}.jpg': image for i, image in enumerate(images)})
    view = EvalView(8, 10)
    found = inspection.statistics(folder(tmp_path), view)
    np.testing.assert_allclose(found['mean'], np.mean([view(image) / 255 for image in images], (0, 1, 2)), rtol=1e-13)
    assert found['pixels'] == 2 * 64


def test_some_images_are_evenly_spaced(tmp_path):
    images = [jpeg(i) for i in range(10)]
    image_folder(tmp_path, {f'train/{"ab"[i // 5]}/{i}.jpg': image for i, image in enumerate(images)})
    found = inspection.statistics(folder(tmp_path), max_images=4)
    np.testing.assert_allclose(found['mean'], all_pixels([images[i] for i in (0, 2, 5, 7)]).mean(0), rtol=1e-13)
    assert inspection.statistics(folder(tmp_path), max_images=11) == inspection.statistics(folder(tmp_path))


def test_unreadable_images_are_named_and_left_out(tmp_path):
    image_folder(tmp_path, {'train/a/0.jpg': b'', 'train/a/1.jpg': jpeg(1)})
    found = inspection.statistics(folder(tmp_path))
    assert [sample['key'] for sample in found['bad']] == ['a/0.jpg'] and found['images'] == 1
    np.testing.assert_allclose(found['mean'], all_pixels([jpeg(1)]).mean(0), rtol=1e-13)
    (tmp_path / 'train' / 'a' / '1.jpg').unlink()
    with pytest.raises(UserError, match=r'none of 1 images can be read, the first a/0\.jpg: 0 bytes'):
        inspection.statistics(folder(tmp_path))


def test_stats_command(tmp_path, monkeypatch, capsys):
    class_tree(tmp_path)
    image_folder(tmp_path, {'train/ant/torn.jpg': b'x'})
    where = ('--format', 'folder', '--path', tmp_path, '--split', 'train')
    code, out = called(monkeypatch, capsys, stats_command, *where, '--size', '8', '--output', tmp_path / 'stats.json')
    assert code is None
    saved = json.loads((tmp_path / 'stats.json').read_text())
    assert (saved['size'], saved['resize'], saved['split'], saved['pixels']) == (8, 8, 'train', 11 * 64)
    assert saved['bad'][0]['key'] == 'ant/torn.jpg' and len(saved['eigenvectors']) == 3
    assert '11 images, 704 pixels, 8 x 8, shorter side to 8; 1 unreadable' in out
    assert 'ant/torn.jpg: 1 bytes of no known image format' in out
    assert f"--config.normalize.mean='({', '.join(f'{x:.4f}' for x in saved['mean'])})'" in out
    code, _ = called(monkeypatch, capsys, stats_command, *where, '--resize', '8')
    assert code == 'error: --resize needs --size, the side of the crop that is measured'
    code, _ = called(monkeypatch, capsys, stats_command, *where, '--size', '8', '--resize', '7')
    assert 'must be at most' in code
    assert called(monkeypatch, capsys, stats_command, *where, '--max-images', '-1')[0] == 2


# preview


def drawn(config, output, count=16, step=0, split='train'):
    """Runs the command in this process."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver((preview_command._OUTPUT, str(output)), (preview_command._COUNT, count),
                             (preview_command._STEP, step), (preview_command._SPLIT, split)):
        preview_command._preview(config)


def test_sheet_sets_stored_and_seen_side_by_side():
    red, blue = np.full((50, 100, 3), (255, 0, 0), np.uint8), np.full((160, 160, 3), (0, 0, 255), np.uint8)
    long = 'an endless name of a class ' * 9
    picture = preview.sheet([preview.Pair(red, blue, long, long)] * 3, long)
    pixels = np.asarray(picture)
    stored, seen = (pixels == (255, 0, 0)).all(2), (pixels == (0, 0, 255)).all(2)
    assert stored.sum() == 3 * 160 * 80 and seen.sum() == 3 * 160 * 160
    columns = np.flatnonzero(seen.any(0))
    assert np.flatnonzero(stored.any(0))[0] == preview._GAP and columns[-1] == picture.width - preview._GAP - 1
    # Captions stay under their own pair: nothing is drawn in the margins, nor between two pairs.
    between = 10 + 160 + 5 + 160
    for x in (slice(0, 10), slice(between, between + 20), slice(-10, None)):
        assert (pixels[2 * 17 + 20:, x] == 255).all()


def test_long_captions_keep_both_ends():
    written = []

    class Draw:
        def text(self, place, text, color, font):
            written.append((text, font.getlength(text)))
    for text in ('short', 'n01440764/' + 'x' * 90 + '_10026.JPEG', 'ab'):
        preview._write(Draw(), (0, 0), text, preview._font(11), 'black', 200 if len(text) != 2 else 1)
    assert written[0][0] == 'short' and written[1][1] <= 200
    assert written[1][0].startswith('n01440764/') and written[1][0].endswith('_10026.JPEG') and '…' in written[1][0]


def test_preview_shows_what_a_step_trains_on(tmp_path, monkeypatch, capsys):
    _, out = called(monkeypatch, capsys, stats_command, '--format', 'digits', '--split', 'train')
    pasted = shlex.split(' '.join(line for line in out.splitlines() if line.startswith('--config')))
    assert len(pasted) == 2
    ran('preview', '--config', 'configs/digits.py', '--output', tmp_path / 'new' / 'seen.png', '--count', 70,
        '--step=3', '--config.augment.flip=True', *pasted)
    source = sources.create('digits', '', 'train')
    transform = TrainView(16, Pad(2), flip=True)
    pairs, step = [], 3
    batches = input_pipeline.train_batches(source, transform, 64, 0, step)
    for batch in (next(batches), next(batches)):
        pairs += [preview.Pair(decode(source.image(i)), seen, source.class_names[source.labels[i]],
                               f'8 x 8, {source.key(i)}')
                  for i, seen in zip(batch['index'], batch['image'], strict=True)]
    batches.close()
    expected = preview.sheet(pairs[:70], 'configs/digits.py, train, step 3')
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'new' / 'seen.png')), np.asarray(expected))


def test_preview_shows_the_part_of_the_device(tmp_path, monkeypatch):
    class Negative(Normalize):
        def __call__(self, images):
            return super().__call__(255 - images)

    monkeypatch.setattr(recipe, 'name', lambda: 'digits')
    shown = []
    monkeypatch.setattr(preview_command, 'sheet', lambda pairs, heading: shown.append(pairs) or Image.new('L', (1, 1)))
    drawn(digits.get_config(), tmp_path / 'plain.png')
    monkeypatch.setattr(experiment, 'Normalize', Negative)
    drawn(digits.get_config(), tmp_path / 'negative.png')
    for plain, negative in zip(*shown, strict=True):
        np.testing.assert_array_equal(plain.stored, negative.stored)
        np.testing.assert_array_equal(plain.seen, 255 - negative.seen)


def test_preview_of_evaluation_stops_at_its_end_and_names_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, 'name', lambda: 'digits')
    class_tree(tmp_path, 5)
    class_tree(tmp_path, 5, split='val')
    image_folder(tmp_path, {'val/ant/000.JPEG': b''})
    config = digits.get_config()
    config.data.format, config.data.path, config.data.eval_split = 'folder', str(tmp_path), 'val'
    config.eval_batch_size = 3
    drawn(config, tmp_path / 'all.png', split='eval')
    view, blank, source = EvalView(16, 16), np.zeros((16, 16, 3), np.uint8), folder(tmp_path, 'val')
    pairs = [preview.Pair(decode(source.image(i)), view(source.image(i)), source.key(i)[:3],
                          f'12 x 10, {source.key(i)}') if source.image(i)
             else preview.Pair(blank, blank, 'ant', f'unreadable: {source.key(i)}') for i in range(5)]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'all.png')),
                                  np.asarray(preview.sheet(pairs, 'digits, eval, step 0')))
    drawn(config, tmp_path / 'rest.png', split='eval', step=1)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'rest.png')),
                                  np.asarray(preview.sheet(pairs[3:], 'digits, eval, step 1')))
    with pytest.raises(UserError, match='--step 2: the split has no batch'):
        drawn(config, tmp_path / 'none.png', split='eval', step=2)


def test_stand_in_of_an_unreadable_image_says_so(tmp_path):
    source = folder(image_folder(tmp_path, {'train/ant/0.jpg': jpeg(), 'train/bee/1.jpg': b''}))
    batch = {'index': np.array([0]), 'bad': np.array([1]), 'image': np.zeros((1, 4, 4, 3), np.uint8)}
    pair = preview_command._pair(source, ['ant', 'bee'], batch, 0)
    assert (pair.title, pair.note) == ('ant', '12 x 10, ant/0.jpg for unreadable bee/1.jpg')


def test_wrong_preview_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, 'name', lambda: 'digits')
    config = digits.get_config()
    for output, message in (('', 'where should the picture go'), ('x.pgn', 'name a picture, such as x.png')):
        with pytest.raises(UserError, match=message):
            drawn(config, output)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write'):
        drawn(config, tmp_path / 'file' / 'x.png')
    config.data.format = 'synthetic'
    with pytest.raises(UserError, match='nothing to look at'):
        drawn(config, 'x.png')


@pytest.mark.parametrize('command', [verify_command, stats_command])
def test_help_shows_examples(command, monkeypatch, capsys):
    code, out = called(monkeypatch, capsys, command, '--help')
    assert code == 0 and f'python -m imagenet_jax {command.__name__.rsplit(".")[-1]} --format' in out


def test_help_of_preview_shows_examples():
    assert 'python -m imagenet_jax preview --config' in ran('preview', '--help')
