"""Training's view."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_images import jpeg, scene

from configs import common
from imagenet_jax.errors import UserError
from imagenet_jax.images import train_view
from imagenet_jax.images.crops import Pad, RandomResized, ShorterSide, Whole
from imagenet_jax.images.distort import Distort
from imagenet_jax.images.policies import POLICIES, ThreeAugment
from imagenet_jax.images.ramp import Ramp
from imagenet_jax.images.train_view import TrainView

ROOT = Path(__file__).parents[2]


def test_flip_mirrors_half_of_the_images():
    pixels, rng = scene(8, 8), np.random.default_rng(0)
    seen = [TrainView(8, Whole())(pixels, rng).tobytes() for _ in range(400)]
    assert set(seen) == {pixels.tobytes(), pixels[:, ::-1].tobytes()}
    assert 0.4 < seen.count(pixels.tobytes()) / 400 < 0.6
    assert {TrainView(8, Whole(), flip=False)(pixels, rng).tobytes() for _ in range(20)} == {pixels.tobytes()}
    both = [TrainView(8, Whole(), flip_vertical=True)(pixels, rng).tobytes() for _ in range(400)]
    assert set(both) == {turned.tobytes() for turned in (pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1])}
    assert min(both.count(one) for one in set(both)) > 60


@pytest.mark.parametrize('crop', [RandomResized(), ShorterSide((8, 16)), Pad(2), Whole()])
@pytest.mark.parametrize('image', [jpeg(), scene(9, 5), scene(8, 8)[..., :1]], ids=['jpeg', 'rgb', 'grey'])
def test_every_crop_is_uint8_of_the_size_and_a_function_of_the_generator(crop, image):
    view = TrainView(8, crop, distort=Distort(color_jitter=0.4))
    first, again, other = (view(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (8, 8, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_flip_and_jitter_the_crop_is_the_view():
    pixels = scene(16, 16)
    np.testing.assert_array_equal(TrainView(16, Whole(), flip=False)(pixels, np.random.default_rng(0)), pixels)


def test_views_are_of_one_crop_and_the_first_is_as_it_was_cut():
    image = scene(40, 30)
    plain, view = TrainView(16), TrainView(16, views=3, distort=Distort(color_jitter=0.4))
    for seed in range(8):  # some of them flipped
        first, *others = views = view(image, np.random.default_rng(seed))
        assert views.shape == view.shape == (3, 16, 16, 3) and views.dtype == np.uint8
        rng = np.random.default_rng(seed)
        np.testing.assert_array_equal(first, plain(image, rng))
        for other in others:  # drawn one after the other
            np.testing.assert_array_equal(other, Distort(color_jitter=0.4)(first, rng))
        assert (others[0] != others[1]).any()
    np.testing.assert_array_equal(TrainView(16, views=2)(image, np.random.default_rng(0)),
                                  [plain(image, np.random.default_rng(0))] * 2)
    assert plain.shape == (16, 16, 3)


def test_a_policy_comes_after_the_flip_and_before_distortions():
    calls, pixels = [], scene(8, 8)

    def noted(name):
        return lambda pixels, rng: calls.append((name, pixels.copy())) or ~pixels
    seen = TrainView(8, Whole(), policy=noted('policy'), distort=noted('distort'))(pixels, np.random.default_rng(0))
    (first, flipped), (second, changed) = calls
    assert (first, second) == ('policy', 'distort')
    assert flipped.tobytes() in {pixels.tobytes(), pixels[:, ::-1].tobytes()}
    np.testing.assert_array_equal(changed, ~flipped)
    np.testing.assert_array_equal(seen, flipped)


@pytest.mark.parametrize('name', POLICIES)
def test_a_view_goes_to_worker_processes(name):
    view = TrainView(8, policy=POLICIES[name](), distort=Distort(hue=0.1, grey=0.2))
    again, image = pickle.loads(pickle.dumps(view)), scene(20, 20)
    assert again == view
    np.testing.assert_array_equal(again(image, np.random.default_rng(1)), view(image, np.random.default_rng(1)))


# --- from a config


def created(*arguments):
    """Of configs/common.py with options as on the command line."""
    config = common.get_config()
    config.update_from_flattened_dict(dict(arguments))
    return train_view.create(config.augment, 'config.augment')


def test_a_section_chooses_the_crop_and_sets_it():
    assert created() == TrainView(224, RandomResized((0.08, 1.0), (3 / 4, 4 / 3)), True)
    assert created(('augment.scale', (0.2, 1.0)), ('augment.flip', False)) == TrainView(
        224, RandomResized((0.2, 1.0)), False)
    assert created(('augment.crop', 'pad')) == TrainView(224, Pad(4))
    assert created(('augment.crop', 'pad'), ('augment.pad', 28)) == TrainView(224, Pad(28))
    assert created(('augment.crop', 'none'), ('augment.size', 16)) == TrainView(16, Whole())
    assert created(('augment.crop', 'shorter_side')) == TrainView(224, ShorterSide((256, 480)))
    assert created(('augment.repeats', 3), ('augment.views', 2), ('augment.flip_vertical', True)) == TrainView(
        224, repeats=3, views=2, flip_vertical=True)
    assert created(('augment.first_size', 128), ('augment.ramp_epochs', (2, 5.5))) == TrainView(
        224, ramp=Ramp(size=224, first_size=128, ramp_epochs=(2, 5.5)))
    assert created(('augment.hue', 0.1), ('augment.hsv', (0.8, 1.25))) == TrainView(
        224, distort=Distort(hue=0.1, hsv=(0.8, 1.25)))
    assert train_view.create({'size': 8, 'crop': 'none'}, 'config.augment', policy=ThreeAugment()) == TrainView(
        8, Whole(), policy=ThreeAugment())
    assert train_view.create({'size': 8, 'crop': 'random_resized', 'scale': [0.5, 1]}, 'config.augment') == TrainView(
        8, RandomResized((0.5, 1)))


@pytest.mark.parametrize(('options', 'message'), [
    ({'crop': 'random_resize'}, r"unknown config\.augment\.crop 'random_resize'; did you mean random_resized"),
    ({'pad': 99}, r'augment\.pad=99 is read by config\.augment\.crop=pad, not by random_resized; to unset it: '),
    ({'crop': 'none', 'ratio': (1, 2)}, r'augment\.ratio=\(1, 2\) is read by config\.augment\.crop=random_resized,'),
    ({'flpi': True}, r"option config\.augment\.flpi: nothing reads 'flpi'; did you mean flip"),
    ({'scael': (0.1, 1)}, r"option config\.augment\.scael: nothing reads 'scael'; did you mean scale"),
    ({'scale': 0.2}, r'config\.augment\.scale=0\.2 must be a tuple of 2'),
    ({'crop': 'pad', 'pad': 1.5}, r'config\.augment\.pad=1\.5 must be a whole number'),
    ({'crop': 'pad', 'pad': -1}, r'config\.augment\.pad=-1 must not be negative'),
    ({'scale': (0.0, 1.0)}, r'augment\.scale'), ({'scale': (0.5, 1.5)}, r'augment\.scale'),
    ({'scale': (0.9, 0.1)}, r'augment\.scale'), ({'ratio': (2.0, 1.0)}, r'augment\.ratio'),
    ({'hsv': 1.2}, r'config\.augment\.hsv=1\.2 must be a tuple of 2'),
    ({'policy': 'augmix'}, r'option config\.augment\.policy: nothing reads'),
    ({'size': 0}, r'config\.augment\.size=0 must be positive'),
    ({'crop': 'shorter_side', 'shorter': (7, 9)},
     r'config\.augment\.shorter=\(7, 9\) must not be below config\.augment\.size=8'),
    ({'crop': 'shorter_side', 'shorter': (9, 8)}, r'config\.augment\.shorter=\(9, 8\) must be \(least, most\)'),
    ({'crop': 'shorter_side', 'first_size': 4, 'ramp_epochs': (0, 1)},
     r'use config\.augment\.crop=random_resized with it'),
    ({'repeats': 0}, r'config\.augment\.repeats=0 must be at least 1'),
    ({'views': 0}, r'config\.augment\.views=0 must be at least 1'),
    ({'first_size': 4}, r'config\.augment lacks ramp_epochs'),
    ({'ramp_epochs': (0, 1)}, r'config\.augment lacks first_size'),
    ({'ramp': 3}, r"option config\.augment\.ramp: nothing reads 'ramp'"),
    ({'color_jitter': -0.1}, r'config\.augment\.color_jitter=-0\.1 must be finite and not negative'),
    ({'color_jitter': float('nan')}, r'config\.augment\.color_jitter=nan must be a finite number')])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        train_view.create({'size': 8, 'crop': 'random_resized'} | options, 'config.augment')


@pytest.mark.parametrize('options', [{'crop': None}, {'size': None}])
def test_missing_options_are_named(options):
    with pytest.raises(UserError, match=f'config.augment lacks {next(iter(options))}'):
        train_view.create({'size': 8, 'crop': 'random_resized'} | options, 'config.augment')


def test_a_tuple_may_be_set_on_the_command_line():
    script = """
from absl import app
from ml_collections import config_flags
from imagenet_jax.images import train_view
flag = config_flags.DEFINE_config_file('config')
app.run(lambda _: print(train_view.create(flag.value.augment, 'config.augment')))
"""
    command = [sys.executable, '-c', script, '--config=configs/common.py', '--config.augment.scale=(0.2, 1.0)']
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert 'RandomResized(scale=(0.2, 1.0)' in done.stdout, done.stderr


def test_data_workers_pay_for_no_jax():
    script = 'import imagenet_jax.images.train_view, imagenet_jax.images.eval_view, sys; print("jax" in sys.modules)'
    assert subprocess.check_output([sys.executable, '-c', script], cwd=ROOT, text=True) == 'False\n'
