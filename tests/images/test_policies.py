"""Policies: the same tables as torchvision's, and what is drawn from them."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from fixtures_images import difference, scene
from torchvision_reference import transforms

from imagenet_jax import options
from imagenet_jax.errors import UserError
from imagenet_jax.images import policies
from imagenet_jax.images.autoaugment import SUB_POLICIES
from imagenet_jax.images.ops import OPERATIONS
from imagenet_jax.images.policies import (
    MIXED,
    POLICIES,
    RANDOM,
    SEARCHED,
    TRIVIAL,
    AugMix,
    AutoAugment,
    RandAugment,
    ThreeAugment,
    TrivialAugment,
)

NAMES = {'ShearX': 'shear_x', 'ShearY': 'shear_y', 'TranslateX': 'translate_x', 'TranslateY': 'translate_y',
         'Color': 'saturation', 'AutoContrast': 'auto_contrast'}
MADE = [AutoAugment(), AutoAugment(dataset='cifar10'), AutoAugment(dataset='svhn'), RandAugment(), TrivialAugment(),
        AugMix(), ThreeAugment()]


def ours(name):
    return NAMES.get(name, name.lower())


@pytest.mark.parametrize('dataset', SUB_POLICIES)
def test_sub_policies_are_torchvisions(dataset):
    v2 = transforms()
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy[dataset.upper()])._policies
    assert SUB_POLICIES[dataset] == tuple(tuple((ours(name), *rest) for name, *rest in pair) for pair in theirs)


class Signed:
    """Stands in for a Generator: turns every way round, or none."""

    def __init__(self, turned):
        self.turned, self.drawn = turned, 0

    def random(self):
        self.drawn += 1
        return 0.0 if self.turned else 0.9


@pytest.mark.parametrize(('space', 'theirs', 'bins'), [(SEARCHED, 'AutoAugment', 10), (RANDOM, 'RandAugment', 31),
                                                       (TRIVIAL, 'TrivialAugmentWide', 31), (MIXED, 'AugMix', 10)])
def test_magnitudes_are_torchvisions(space, theirs, bins):
    """Operation by operation, as the operation takes them: factors from 1, levels, whole bits and pixels."""
    their_space = getattr(transforms(), theirs)._AUGMENTATION_SPACE
    assert space.keys() == {ours(name) for name in their_space}
    for name, (magnitudes, signed) in their_space.items():
        mine, values = space[ours(name)], magnitudes(bins, 224, 160)
        if values is None:
            assert mine is None and not signed
            continue
        for turned in (False, True):
            rng = Signed(turned)
            given = np.array([mine.magnitude(i / (bins - 1), (224, 160, 3), rng) for i in range(bins)])
            assert rng.drawn == (bins if signed else 0)
            expected = values.numpy().astype(float) * (-1 if turned and signed else 1)
            if name in ('Brightness', 'Color', 'Contrast', 'Sharpness'):
                expected += 1
            if name == 'Solarize':
                expected *= 255
            np.testing.assert_allclose(given.round() if name == 'Posterize' else given, expected, atol=1e-4)
            if name.startswith('Translate'):
                # Theirs are float32: a magnitude of 16 pixels is a little less, and they move by 15.
                cut = np.isclose(given, given.round(), rtol=0, atol=1e-4)
                np.testing.assert_array_equal(given[~cut].astype(int), expected[~cut].astype(int))


class Scripted:
    """Stands in for a Generator: answers in turn, and notes what integers are drawn below, and around what others."""

    def __init__(self, *answers):
        self.answers, self.below, self.normals = list(answers), [], []

    def integers(self, *bounds):
        self.below.append(bounds)
        return self.answers.pop(0)

    def random(self):
        return self.answers.pop(0)

    def normal(self, *around):
        self.normals.append(around)
        return self.answers.pop(0)

    def uniform(self, low, high):
        assert (low, high) == (0.1, 2)
        return self.answers.pop(0)


def test_autoaugment_draws_a_sub_policy_and_each_operation():
    """Sub-policy 15: rotate with 0.8 at 8, saturation with 1 at 2; and number 0, whose posterize is left out."""
    pixels, rotate, saturation = scene(20, 20), OPERATIONS['rotate'], OPERATIONS['saturation']
    rng = Scripted(15, 0.79, 0.1, 0.99, 0.6)
    np.testing.assert_array_equal(AutoAugment()(pixels, rng), saturation(rotate(pixels, -30 * 8 / 9), 1 + 0.9 * 2 / 9))
    assert rng.below == [(25,)] and not rng.answers
    np.testing.assert_array_equal(AutoAugment()(pixels, Scripted(0, 0.4, 0.5, 0.7)), rotate(pixels, 30))


def test_randaugment_draws_operations_and_signs():
    names = list(RANDOM)
    pixels, rng = scene(20, 20), Scripted(names.index('brightness'), 0.4, names.index('identity'))
    np.testing.assert_array_equal(RandAugment()(pixels, rng), OPERATIONS['brightness'](pixels, 1 - 0.9 * 9 / 30))
    assert rng.below == [(14,), (14,)] and not rng.answers
    some = RandAugment(magnitude=29, deviation=2.0, probability=0.5)
    rng = Scripted(0.5, 0.49, 31.0, names.index('brightness'), 0.6)  # the first is left out, the second at most at 30
    np.testing.assert_array_equal(some(pixels, rng), OPERATIONS['brightness'](pixels, 1.9))
    assert not rng.answers and rng.normals == [(29, 2.0)]
    rng = Scripted(names.index('posterize'))
    np.testing.assert_array_equal(RandAugment(count=1, magnitude=30)(pixels, rng), pixels & 0xf0)


def test_trivialaugment_draws_one_operation_and_its_magnitude():
    pixels, rng = scene(20, 20), Scripted(list(TRIVIAL).index('rotate'), 10, 0.5)
    np.testing.assert_array_equal(TrivialAugment()(pixels, rng), OPERATIONS['rotate'](pixels, 45))
    assert rng.below == [(14,), (31,)]


def test_three_augment_is_one_of_three():
    pixels = scene(20, 20)
    for number, (name, value) in enumerate([('grey', 0), ('solarize', 128), ('blur', 1.7)]):
        rng = Scripted(number, value)
        np.testing.assert_array_equal(ThreeAugment()(pixels, rng), OPERATIONS[name](pixels, value))
        assert rng.below == [(3,)]


@pytest.mark.parametrize(('depth', 'depths'), [(-1, [(1, 4)]), (2, [])])
def test_augmix_weighs_the_image_and_its_chains(depth, depths, monkeypatch):
    """The image by the Beta's share, chains by the Dirichlet's of the rest; chain i here turns pixels to a level."""
    levels = iter(range(100))
    monkeypatch.setattr(policies, '_applied', lambda name, space, share, pixels, *_: np.full_like(pixels, next(levels)))
    below = []
    rng = SimpleNamespace(
        beta=lambda a, b: 0.4, dirichlet=lambda alphas: np.array([0.2, 0.5, 0.3]),
        integers=lambda *bounds: below.append(bounds) or (2 if bounds == (1, 4) else 0))
    pixels = np.full((2, 2, 3), 200, np.uint8)
    expected = 0.4 * 200 + 0.6 * (0.2 * 1 + 0.5 * 3 + 0.3 * 5)  # of two operations the second stays
    assert (AugMix(depth=depth)(pixels, rng) == round(expected)).all()
    assert below == [*depths, *[(13,), (3,)] * 2] * 3


def test_augmix_of_one_sided_weights_is_finite():
    """A small alpha draws shares of exactly 0."""
    pixels = scene(8, 8)
    for seed in range(20):
        AugMix(alpha=1e-3)(pixels, np.random.default_rng(seed))


@pytest.mark.parametrize('policy', MADE, ids=repr)
def test_policies_are_functions_of_the_generator(policy):
    pixels = scene(32, 40)
    before = pixels.copy()
    many = [[policy(pixels, rng) for _ in range(20)] for rng in map(np.random.default_rng, (1, 1, 2))]
    np.testing.assert_array_equal(*many[:2])
    assert any((a != b).any() for a, b in zip(*many[1:], strict=True))
    assert {(image.shape, image.dtype.name) for image in many[0]} == {((32, 40, 3), 'uint8')}
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.slow
@pytest.mark.parametrize(('policy', 'name'), [*zip(MADE[:1] + MADE[3:6], (
    'AutoAugment', 'RandAugment', 'TrivialAugmentWide', 'AugMix'), strict=True)], ids=str)
def test_policies_change_images_as_much_as_torchvisions(policy, name):
    """Mean difference from the image, over many draws, and the part of images that it leaves as they are."""
    theirs, torch = getattr(transforms(), name)(), pytest.importorskip('torch')
    torch.manual_seed(0)
    pixels, rng = scene(64, 64), np.random.default_rng(0)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    count = 600
    off = np.array([[difference(view(), pixels) for _ in range(count)] for view in (
        lambda: policy(pixels, rng), lambda: theirs(tensor).permute(1, 2, 0).numpy())])
    error = math.sqrt(off.var(axis=1).sum() / count)
    assert abs(off[0].mean() - off[1].mean()) < 4 * error + 0.5


def created(**section):
    return options.create(POLICIES, section, 'config.policy')


def test_a_section_chooses_the_policy_and_sets_it():
    assert created(name='none')(scene(4, 4), None).tobytes() == scene(4, 4).tobytes()
    assert created(name='autoaugment', dataset='svhn') == AutoAugment(dataset='svhn')
    assert created(name='randaugment', count=3, magnitude=10) == RandAugment(count=3, magnitude=10)
    assert created(name='augmix', depth=2, alpha=0.5) == AugMix(depth=2, alpha=0.5)


@pytest.mark.parametrize(('section', 'message'), [
    ({'name': 'autoaugmnet'}, "unknown config.policy.name 'autoaugmnet'; did you mean autoaugment"),
    ({'name': 'none', 'magnitude': 9}, 'config.policy.magnitude=9 is read by config.policy.name=randaugment, not by'),
    ({'name': 'autoaugment', 'dataset': 'cifar'}, "unknown config.policy.dataset 'cifar'; did you mean cifar10"),
    ({'name': 'randaugment', 'count': 0}, 'config.policy.count=0 must be positive'),
    ({'name': 'randaugment', 'magnitude': 31}, 'config.policy.magnitude=31 must be in 0..30'),
    ({'name': 'randaugment', 'deviation': -0.5}, 'config.policy.deviation=-0.5 must not be negative'),
    ({'name': 'randaugment', 'probability': 0.0}, 'config.policy.probability=0.0 must be in (0, 1]'),
    ({'name': 'augmix', 'severity': 11}, 'config.policy.severity=11 must be in 1..10'),
    ({'name': 'augmix', 'width': 0}, 'config.policy.width=0 must be positive'),
    ({'name': 'augmix', 'depth': 0}, 'config.policy.depth=0 must be positive, or -1'),
    ({'name': 'augmix', 'alpha': 0.0}, 'config.policy.alpha=0.0 must be positive')])
def test_wrong_options_are_refused(section, message):
    with pytest.raises(UserError, match=re.escape(message)):
        created(**section)
