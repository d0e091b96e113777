"""Training steps beside PyTorch's, in float64, where nothing but a mistake tells them apart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_parity_classic
from torch_reference import CifarResNet, channels_last, randomise, torch

from imagenet_jax import models, optim, weights
from imagenet_jax.step import TrainStep, make_mesh
from imagenet_jax.task import Softmax

pytestmark = pytest.mark.numerics

RATE, MOMENTUM, DECAY, SMOOTHING, STEPS = 0.05, 0.9, 1e-2, 0.1, 2


def keep_biased_variance(module, inputs, _output):
    """The one difference: PyTorch's running variance divides by n - 1, Flax's by n."""
    x, = inputs
    excess = module.momentum * x.detach().var((0, 2, 3)) / (x.numel() // x.shape[1])
    module.running_var = module.running_var - excess  # not in place: the backward pass counts changes


def their_steps(reference, images, labels):
    """Of each step: the loss, the gradients, and the state_dict after the update."""
    reference.double().train()
    for module in reference.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(keep_biased_variance)
    optimizer = torch.optim.SGD(reference.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    for x, y in zip(images, labels, strict=True):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(reference(x), y, label_smoothing=SMOOTHING)
        loss.backward()
        gradients = {name: p.grad.numpy() for name, p in reference.named_parameters()}
        optimizer.step()
        yield loss.item(), gradients, {name: value.numpy() for name, value in reference.state_dict().items()}


def our_steps(model, variables, size, images, labels):
    """As `their_steps`, by PyTorch's names."""
    step = TrainStep(
        model=model, optimizer=optim.SGD(momentum=MOMENTUM, weight_decay=DECAY), schedule=lambda updates: RATE,
        task=Softmax(smoothing=SMOOTHING), normalize=lambda images: images, mesh=make_mesh(jax.devices()[:1]))
    state = step.init(0, size)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype('float64')}
    state = state.replace(**jax.tree.map(
        lambda x, drawn: jax.device_put(x.astype(np.float64), drawn.sharding), variables, state.variables))
    export = partial(weights.to_torch, model)
    for x, y in zip(images, labels, strict=True):
        trace = state.opt_state['momentum'].trace
        before = jax.tree.map(lambda p, t: DECAY * np.asarray(p) + MOMENTUM * np.asarray(t), state.params, trace)
        state, metrics = step(state, {'image': channels_last(x), 'label': y.numpy().astype(np.int32)})
        # What momentum has gathered, less what was there before, is the gradient.
        gradients = jax.tree.map(np.subtract, jax.device_get(state.opt_state['momentum'].trace), before)
        yield metrics['loss'], export({**state.variables, 'params': gradients}), export(state.variables)


@pytest.mark.parametrize(('name', 'size', 'build'), [
    ('resnet20_cifar', 16, partial(CifarResNet, 3)),
    pytest.param('resnet50', 64, partial(test_parity_classic.torchvision, 'resnet50'), marks=pytest.mark.slow),
    pytest.param('alexnet_v1', 67, test_parity_classic.alexnet_v1, marks=pytest.mark.slow)])
def test_two_steps(name, size, build):
    """Loss, gradients, parameters under SGD with momentum and decay, and running statistics."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS, 4, 3, size, size, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 10, (STEPS, 4), generator=draw)
    reference = randomise(build())
    options = {'dropout': 0.0} if name == 'alexnet_v1' else {}
    with jax.enable_x64(True):
        model = models.create(name, num_classes=10, dtype='float64', param_dtype='float64', **options)
        variables = weights.from_torch(model, reference.state_dict())
        steps = zip(our_steps(model, variables, size, images, labels), their_steps(reference, images, labels),
                    strict=True)
        for (loss, gradients, state), (their_loss, their_gradients, their_state) in steps:
            assert loss == pytest.approx(their_loss, rel=1e-6)
            assert_close(gradients, their_gradients)
            assert_close(state, {n: v for n, v in their_state.items() if not n.endswith('num_batches_tracked')})


def assert_close(ours, theirs):
    """Every array that they have agrees to 1e-6 of its largest value."""
    errors = {name: np.abs(ours[name] - value).max() / np.abs(value).max() for name, value in theirs.items()}
    assert max(errors.values()) < 1e-6, {name: error for name, error in errors.items() if error >= 1e-6}
