"""Pictures of what a model will see."""

import shlex

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from fixtures_commands import called, ran
from fixtures_images import class_tree, image_folder, jpeg
from fixtures_sources import folder
from PIL import Image

from configs import digits
from imagenet_jax import experiment, input_pipeline, preview, seen, sources
from imagenet_jax.command_line import recipes
from imagenet_jax.commands import preview as preview_command
from imagenet_jax.errors import UserError
from imagenet_jax.images import train_view
from imagenet_jax.images.batch import Normalize
from imagenet_jax.images.crops import Pad
from imagenet_jax.images.decode import decode
from imagenet_jax.images.erase import Cutout
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.images.train_view import TrainView
from imagenet_jax.streams import STREAMS


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
        preview.write(Draw(), (0, 0), text, preview.font(11), 'black', 200 if len(text) != 2 else 1)
    assert written[0][0] == 'short' and written[1][1] <= 200
    assert written[1][0].startswith('n01440764/') and written[1][0].endswith('_10026.JPEG') and '…' in written[1][0]


def test_preview_shows_what_a_step_trains_on(tmp_path, monkeypatch, capsys):
    _, out = called(monkeypatch, capsys, 'stats', '--format', 'digits', '--split', 'train')
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

    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
    shown = []
    monkeypatch.setattr(preview, 'sheet', lambda pairs, heading: shown.append(pairs) or Image.new('L', (1, 1)))
    drawn(digits.get_config(), tmp_path / 'plain.png')
    monkeypatch.setattr(experiment, 'Normalize', Negative)
    drawn(digits.get_config(), tmp_path / 'negative.png')
    for plain, negative in zip(*shown, strict=True):
        np.testing.assert_array_equal(plain.stored, negative.stored)
        np.testing.assert_array_equal(plain.seen, 255 - negative.seen)


def test_preview_shows_what_is_mixed(tmp_path, monkeypatch):
    """At the step that is named, by the share of its stream; never in evaluation."""
    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
    shown = []
    monkeypatch.setattr(preview, 'sheet', lambda pairs, heading: shown.append(pairs) or Image.new('L', (1, 1)))
    config = digits.get_config()
    for mixup, split in ((0.0, 'train'), (0.4, 'train'), (0.0, 'eval'), (0.4, 'eval')):
        config.mix.mixup = mixup
        drawn(config, tmp_path / 'seen.png', split=split, step=2, count=64)
    plain, mixed, *evaluation = (np.array([pair.seen for pair in pairs], float) for pairs in shown)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 2), STREAMS['mix'])
    share = float(jax.random.beta(key, 0.4, 0.4))
    np.testing.assert_allclose(mixed, share * plain + (1 - share) * plain[::-1], atol=0.51)
    np.testing.assert_array_equal(*evaluation)


def test_preview_shows_every_view(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
    shown = []
    monkeypatch.setattr(preview, 'sheet', lambda pairs, heading: shown.extend(pairs) or Image.new('L', (1, 1)))
    config = digits.get_config()
    config.augment.views, config.augment.color_jitter, config.augment.first_size = 3, 0.4, 8
    config.augment.ramp_epochs = (0, 2)
    for step, side in ((0, 8), (60, 16)):
        drawn(config, tmp_path / 'seen.png', step=step, count=7)
        transform = train_view.create(config.augment, 'config.augment')
        batches = input_pipeline.train_batches(sources.create('digits', '', 'train'), transform, 64, 0, step)
        views = next(batches)['image'].reshape(-1, side, side, 3)
        batches.close()
        np.testing.assert_array_equal([pair.seen for pair in shown], views[:7])
        assert [pair.title[1:] for pair in shown[:4]] == [', view 1 of 3', ', view 2 of 3', ', view 3 of 3',
                                                          ', view 1 of 3']
        shown.clear()


@pytest.mark.parametrize(('section', 'options'), [('mix', {'cutmix': 1.0}), ('erase', {'name': 'random'})])
def test_preview_refuses_views_as_training_does(section, options, tmp_path):
    config = digits.get_config()
    config.augment.views = 3
    config[section].update(options)
    with pytest.raises(UserError, match=r'config\.augment\.views .* do not go with config\.mix or config\.erase'):
        drawn(config, tmp_path / 'seen.png')


def test_preview_shows_what_is_erased_and_what_is_off(tmp_path, monkeypatch):
    """Erased at step 2, and no longer mixed."""
    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
    shown = []
    monkeypatch.setattr(preview, 'sheet', lambda pairs, heading: shown.append(pairs) or Image.new('L', (1, 1)))
    config = digits.get_config()
    drawn(config, tmp_path / 'seen.png', step=2, count=64)
    config.erase.name, config.erase.side, config.steps = 'cutout', 5, 10
    config.mix.mixup, config.mix.off_epochs = 0.4, 0.4  # 9 steps, 22.5 an epoch
    drawn(config, tmp_path / 'seen.png', step=2, count=64)
    plain, erased = (np.array([pair.seen for pair in pairs]) for pairs in shown)
    normalize = Normalize(**config.normalize)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 2), STREAMS['erase'])
    expected = normalize.undo(jax.jit(Cutout(side=5))(key, 2, normalize(plain), np.arange(64)))
    np.testing.assert_array_equal(erased, expected)
    assert (erased != plain).any((1, 2, 3)).all()


def test_preview_of_evaluation_stops_at_its_end_and_names_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
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
    pair = seen._pair(source, ['ant', 'bee'], batch, 0)
    assert (pair.title, pair.note) == ('ant', '12 x 10, ant/0.jpg for unreadable bee/1.jpg')


def test_wrong_preview_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'name', lambda: 'digits')
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


def test_help_of_preview_shows_examples():
    assert 'python -m imagenet_jax preview --config' in ran('preview', '--help')
