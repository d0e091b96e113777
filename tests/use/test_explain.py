"""Grad-CAM: its gradients are those of the model, computed plainly, and what it shows is where the object is."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_images import scene
from fixtures_trained import imported, variables_of

import imagenet_jax
from imagenet_jax import catalog, models
from imagenet_jax.errors import UserError
from imagenet_jax.images.eval_view import EvalView
from imagenet_jax.models.octresnet import OctaveResNet
from imagenet_jax.use.classifier import Classifier
from imagenet_jax.use.explain import GradCAM, class_number, from_stage, grad_cam, overlay

NAMES = *'abcdefghi', 'n01440764'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return imagenet_jax.load(imported(tmp_path_factory.mktemp('one'), class_names=NAMES))


def pictures(count=3):
    return [scene(40 + 5 * i, 60 - 5 * i, i) for i in range(count)]


def perturbed(model, variables, images, module, change):
    """Logits where the output of the module of that name is changed: Flax's own way, another than ours."""
    def change_output(call, arguments, keywords, context):
        output = call(*arguments, **keywords)
        return change(output) if context.module.name == module and context.method_name == '__call__' else output
    with nn.intercept_methods(change_output):
        return model.apply(variables, images)


def heat(weights, maps):
    found = np.maximum((np.asarray(weights) * np.asarray(maps)).sum(-1), 0)
    most = found.max((1, 2), keepdims=True)
    return found / np.where(most == 0, 1, most)


def seen(model, images):
    """Normalised, as the model takes them."""
    return model.members[0].normalize(np.stack([model.picture(image) for image in images]))


def test_of_the_last_stage_of_a_resnet_it_is_cam(model):
    """The head's own weights over the map, as in arXiv 1512.04150."""
    images, explain = pictures(), GradCAM(model)
    logits, maps = jax.jit(lambda x: model.model.apply(model.variables, x, features=True))(seen(model, images))
    kernel, shown = model.variables['params']['linear']['kernel'], np.stack([model.picture(each) for each in images])
    for asked, numbers in ([2, 2, 2], [2, 2, 2]), ([-1] * 3, logits.argmax(-1)), ([0, 3, 9], [0, 3, 9]):
        found = explain(shown, asked)
        assert found.shape == (3, 8, 8) and found.dtype == np.float32
        np.testing.assert_allclose(found, heat(kernel[:, np.array(numbers)].T[:, None, None], maps['layer3']),
                                   atol=1e-4)


def test_weights_are_the_gradient_computed_plainly(model):
    images = pictures()

    @jax.jit
    def plainly(normalized):
        maps = model.model.apply(model.variables, normalized, features=True)[1]['layer2']

        def logit(delta):
            return perturbed(model.model, model.variables, normalized, 'layer2', lambda x: x + delta)[:, 9].sum()
        return jax.grad(logit)(jnp.zeros_like(maps)).mean((1, 2), keepdims=True), maps
    found = grad_cam(model, images, 'layer2', 'tench')
    np.testing.assert_allclose(found, heat(*plainly(seen(model, images))), atol=1e-4)
    assert found.max() == 1


@pytest.mark.slow
def test_either_half_of_an_octave_is_a_stage():
    """Two maps that one step of the program answers, rematerialised: the other stays as it is."""
    model = OctaveResNet(depths=(1, 1, 1, 1), num_classes=3, remat=True)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))

    @jax.jit
    def answers(variables):
        maps, logits_of = from_stage(model, variables, images, 'layer3.low')
        moved = perturbed(model, variables, images, 'layer3', lambda pair: (pair[0], pair[1] + 1))
        return logits_of(maps), logits_of(maps + 1), moved
    still, ours, moved = answers(variables_of(model, 32))
    np.testing.assert_allclose(ours, moved, rtol=1e-5)
    assert np.abs(still - moved).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('name', catalog.sizes())
def test_every_stage_of_every_model_can_be_explained(name):
    """Logits from a map are logits of all the model, and they depend on the map."""
    model, size = models.create(name, num_classes=3), catalog.image_size(name)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(images.shape)))
    shapes = jax.eval_shape(lambda v, x: model.apply(v, x, features=True), variables, images)[1]
    for stage, shape in shapes.items():
        def gradient(variables, images, stage=stage):
            maps, logits_of = from_stage(model, variables, images, stage)
            return jax.grad(lambda maps: logits_of(maps).sum())(maps)
        program = jax.make_jaxpr(gradient)(variables, images).jaxpr
        assert program.outvars[0].aval.shape == shape.shape
        assert program.outvars[0] in [out for step in program.eqns for out in step.outvars]


def test_stages_stand_in_the_order_of_the_network():
    model = models.create('alexnet_cifar')
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    one = SimpleNamespace(model=model, variables=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes),
                          view=EvalView(32, 32))
    assert Classifier.stages.func(one) == ('features.2', 'features.5', 'features.12')


def test_of_several_models_the_first_is_explained(model):
    only = model.members[0]
    other = dataclasses.replace(only, variables=jax.tree.map(lambda x: x + 1, only.variables))
    assert GradCAM(Classifier(only, other))._one.members == (only,)


def test_wrong_use_is_explained(model):
    headless = Classifier(dataclasses.replace(model.members[0], model=model.model.clone(num_classes=0)))
    for call, message in [
            (lambda: grad_cam(model, pictures(), 'layer9'), "no stage 'layer9'; it has layer1, layer2, layer3"),
            (lambda: grad_cam(model, pictures(), classes='z'), r"no class 'z'; it has 'a', 'b', .* number in 0..9"),
            (lambda: class_number(model, 10), "no class '10'"), (lambda: class_number(model, '9' * 5000), 'no class'),
            (lambda: class_number(model, 'tensh'), 'did you mean tench'),
            (lambda: grad_cam(model, pictures(), classes=[1]), '1 classes were given for 3 images'),
            (lambda: grad_cam(model, [b'x']), 'image 0 has no explanation: cannot be read'),
            (lambda: GradCAM(headless), 'no head')]:
        with pytest.raises(UserError, match=message):
            call()
    assert grad_cam(model, []).shape[0] == 0


def test_an_overlay_colours_what_counts_and_leaves_the_rest():
    picture = scene(32, 32)
    heat = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(overlay(picture, heat), picture.repeat(7, 0).repeat(7, 1))
    heat[0, 0] = 1
    shown, large = overlay(picture, heat), picture.repeat(7, 0).repeat(7, 1)
    assert shown.shape == (224, 224, 3) and shown.dtype == np.uint8
    assert (shown[:20, :20] != large[:20, :20]).any(-1).all() and (shown[100:, 100:] == large[100:, 100:]).all()


@pytest.mark.slow
def test_it_lands_on_the_object(tmp_path):
    """A model that was taught a disc and a cross somewhere on noise, in seconds."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[:32, :32]

    def draw(count):
        images, labels = rng.integers(90, 160, (count, 32, 32, 3), np.uint8), rng.integers(2, size=count)
        places = rng.integers(6, 26, (count, 2))
        for image, label, (top, left) in zip(images, labels, places, strict=True):
            disc = (y - top) ** 2 + (x - left) ** 2 <= 16
            cross = (np.minimum(abs(y - top), abs(x - left)) <= 1) & (np.maximum(abs(y - top), abs(x - left)) <= 5)
            image[cross if label else disc] = 255
        return images, labels, places
    one = imagenet_jax.load(imported(tmp_path, class_names=('disc', 'cross')))
    model, normalize, optimizer = one.model, one.members[0].normalize, optax.adam(3e-3)

    @jax.jit
    def step(variables, state, images, labels):
        def loss(params):
            logits, moved = model.apply({**variables, 'params': params}, normalize(images), train=True,
                                        mutable=['batch_stats'])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved
        (_, moved), gradients = jax.value_and_grad(loss, has_aux=True)(variables['params'])
        updates, state = optimizer.update(gradients, state)
        return {'params': optax.apply_updates(variables['params'], updates), **moved}, state
    variables = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))()
    state = optimizer.init(variables['params'])
    for _ in range(250):
        variables, state = step(variables, state, *draw(64)[:2])
    one.variables.update(jax.device_get(variables))
    images, labels, places = draw(64)
    assert (one.predict(list(images)).argmax(-1) == labels).mean() > 0.95
    maps = grad_cam(one, list(images), classes=labels.tolist())
    peaks = np.array([np.unravel_index(each.argmax(), each.shape) for each in maps]) * 4 + 2
    assert np.mean(np.abs(peaks - places).max(1) <= 6) > 0.8
