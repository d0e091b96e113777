"""Targets, losses and accuracy against numpy, PyTorch and timm; what each task makes of wrong labels."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.task import BinaryCrossEntropy, Sigmoid, Softmax, jensen_shannon


def cross_entropy(logits, labels, smoothing=0.0):
    task = Softmax(smoothing=smoothing)
    return task.loss(logits, task.targets(labels, logits.shape[-1]))


def binary_cross_entropy(logits, labels, smoothing=0.0):
    task = Sigmoid(smoothing=smoothing)
    return task.loss(logits, task.targets(labels, logits.shape[-1]))


def reference(logits, labels, smoothing):
    """Mean over classes of eps / K each, and the rest on the label."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    of_label = log_p[np.arange(len(labels)), labels]
    return -((1 - smoothing) * of_label + smoothing * log_p.mean(1))


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.9])
def test_agrees_with_numpy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (6, 7)).astype(np.float32), rng.integers(7, size=6)
    loss = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, reference(logits, labels, smoothing), rtol=1e-5)


def test_large_logits_do_not_overflow():
    loss = cross_entropy(jnp.array([[1e4, -1e4], [1e4, -1e4]]), jnp.array([0, 1]))
    np.testing.assert_allclose(loss, [0.0, 2e4], rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_is_computed_in_float32(dtype):
    logits = jnp.array([[3.0, 1.0, -2.0]], dtype)  # exact in either
    loss = cross_entropy(logits, jnp.array([1]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(np.array([[3.0, 1.0, -2.0]]), np.array([1]), 0.0), rtol=1e-6)


def drawn(shape=(6, 7), seed=0):
    """Logits of that shape, a label for each row."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, shape).astype(np.float32), rng.integers(shape[-1], size=shape[0])


@pytest.fixture(scope='module')
def timm():
    """(torch, timm.loss alone: all of timm takes seconds to import)"""
    torch, found = pytest.importorskip('torch'), importlib.util.find_spec('timm')
    if found is None:
        pytest.skip('timm is not installed')
    spec = importlib.util.spec_from_file_location('timm_loss', Path(found.origin).parent / 'loss' / '__init__.py')
    module = sys.modules['timm_loss'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield torch, module
    del sys.modules['timm_loss']


def test_smoothing_agrees_with_pytorch():
    torch = pytest.importorskip('torch')
    logits, labels = drawn()
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction='none')
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels), 0.1),
                               theirs(torch.tensor(logits), torch.tensor(labels)), rtol=1e-5)


@pytest.mark.parametrize('kind', [Softmax, BinaryCrossEntropy])
def test_smoothing_that_spares_the_target(kind):
    """eps/(K-1) on each of the others, so that the sum stays 1."""
    targets = kind(smoothing=0.3, exclude_target=True).targets(jnp.array([2, 0]), 4)
    np.testing.assert_allclose(targets, [[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]], rtol=1e-6)


# --- a yes or no for each class


@pytest.mark.parametrize(('smoothing', 'threshold'), [(0.0, None), (0.1, None), (0.1, 0.2), (0.0, 0.0)])
def test_bce_agrees_with_timm(smoothing, threshold, timm):
    """Of labels, and of targets that two labels were mixed to; where there is a threshold, each side of it."""
    torch, losses = timm
    logits, labels = drawn()
    task = BinaryCrossEntropy(smoothing=smoothing, threshold=threshold)
    theirs = losses.BinaryCrossEntropy(smoothing, threshold, reduction='none')
    own, partners = (np.asarray(task.targets(each, 7)) for each in (labels, (labels + 1) % 7))
    for share in (1, 0.7, 0.85):
        targets = share * own + (1 - share) * partners
        given = torch.tensor(labels if share == 1 else targets)
        expected = theirs(torch.tensor(logits), given).mean(-1)
        np.testing.assert_allclose(task.loss(logits, targets), expected, rtol=1e-5)


def test_bce_is_judged_as_softmax():
    """The answer and an evaluation's loss: given that one class alone is there, a softmax is how likely each is."""
    logits, labels = drawn()
    everywhere = np.ones(6, bool)
    found = [task.measure(logits, labels, everywhere, everywhere)[0]
             for task in (Softmax(), BinaryCrossEntropy(smoothing=0.1, threshold=0.2))]
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert float(found[1]['loss']) == pytest.approx(reference(logits, labels, 0.0).sum(), rel=1e-5)
    p = jax.nn.sigmoid(logits[0].astype(np.float64))
    alone = np.array([p[i] * np.prod(np.delete(1 - p, i)) for i in range(7)])
    np.testing.assert_allclose(BinaryCrossEntropy().probabilities(logits)[0], alone / alone.sum(), rtol=1e-4)


# --- several views of an image


def test_views_agree_with_timm(timm):
    """The gradient too; where a probability is 0 in float32 theirs is NaN."""
    torch, losses = timm
    logits, labels = drawn((5, 3, 4))
    task = Softmax(smoothing=0.1, consistency=12.0)
    ours = jax.jit(jax.value_and_grad(lambda x: task.loss(x, task.targets(labels, 4)).mean()))
    loss, gradient = ours(logits)
    views = torch.tensor(logits).transpose(0, 1).reshape(15, 4).requires_grad_()  # theirs go view by view
    theirs = losses.JsdCrossEntropy(num_splits=3, alpha=12, smoothing=0.1)(views, torch.tensor(labels))
    theirs.backward()
    np.testing.assert_allclose(loss, theirs.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient, views.grad.reshape(3, 5, 4).transpose(0, 1), rtol=1e-4, atol=1e-7)
    assert all(np.isfinite(x).all() for x in ours(logits * 100))


def test_views_that_agree_cost_nothing():
    logits, labels = drawn((5, 3, 4))
    np.testing.assert_allclose(jensen_shannon(np.repeat(logits[:, :1], 3, 1)), 0, atol=1e-6)
    assert (jensen_shannon(logits) > 0.01).all()
    targets = Softmax().targets(labels, 4)
    np.testing.assert_array_equal(Softmax().accuracy(logits, targets), Softmax().accuracy(logits[:, 0], targets))


# --- several classes an image


def test_sigmoid_agrees_with_numpy_and_leaves_nan_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 7)).astype(np.float32)
    labels = rng.integers(2, size=(6, 7)).astype(np.float32)
    labels[rng.random((6, 7)) < 0.3] = np.nan
    labels[5] = np.nan
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for smoothing in (0.0, 0.2):
        targets = np.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
        each = np.where(np.isnan(labels), 0, -targets * np.log(p) - (1 - targets) * np.log1p(-p))
        expected = each.sum(1) / np.maximum((~np.isnan(labels)).sum(1), 1)
        loss = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
        assert loss.dtype == jnp.float32 and loss[5] == 0
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_sigmoid_gradient_is_zero_where_a_class_is_not_counted():
    labels = jnp.array([[1.0, jnp.nan, 0.0]])
    gradient = jax.grad(lambda logits: binary_cross_entropy(logits, labels).sum())(jnp.zeros((1, 3)))
    np.testing.assert_allclose(gradient, [[-0.25, 0.0, 0.25]])


def test_accuracy():
    logits = jnp.array([[3.0, -1.0, 2.0], [-1.0, 2.0, 0.5]])
    targets = Softmax(smoothing=0.3).targets(jnp.array([0, 2]), 3)
    np.testing.assert_array_equal(Softmax().accuracy(logits, targets), [1, 0])
    labels = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, jnp.nan]])
    for smoothing in (0.0, 0.4):
        targets = Sigmoid(smoothing=smoothing).targets(labels, 3)
        np.testing.assert_allclose(Sigmoid().accuracy(logits, targets), [2 / 3, 1 / 2])


def test_soft_targets():
    """Cross-entropy is linear in the targets, and the largest of them is the one to hit."""
    logits = jnp.array([[3.0, -1.0, 2.0]])
    one, other = (Softmax().loss(logits, jnp.eye(3)[i][None]) for i in (0, 2))
    mixed = 0.3 * jnp.eye(3)[:1] + 0.7 * jnp.eye(3)[2:]
    np.testing.assert_allclose(Softmax().loss(logits, mixed), 0.3 * one + 0.7 * other, rtol=1e-6)
    assert Softmax().accuracy(logits, mixed) == 0 and Softmax().accuracy(logits, mixed[:, ::-1]) == 1


@pytest.mark.parametrize('task', [Softmax(), Sigmoid()])
@pytest.mark.parametrize('wrong', [jnp.array([0, 1]), jnp.zeros((2, 4)), jnp.zeros((1, 3))])
def test_labels_are_not_taken_for_targets(task, wrong):
    with pytest.raises(ValueError, match=r'must have the shape of the logits, \(2, 3\)'):
        task.loss(jnp.zeros((2, 3)), wrong)


@pytest.mark.parametrize('smoothing', [-0.1, 1.0])
def test_smoothing_has_a_range(smoothing):
    with pytest.raises(UserError, match=rf'config\.loss\.smoothing={smoothing} must be in \[0, 1\)'):
        Softmax(smoothing=smoothing)


@pytest.mark.parametrize(('options', 'message'), [
    ({'exclude_target': True}, r'config\.loss\.exclude_target says how labels are smoothed, and .*smoothing is 0'),
    ({'consistency': -1.0}, r'config\.loss\.consistency=-1\.0 must not be negative'),
    ({'threshold': 1.0}, r'config\.loss\.threshold=1\.0 must be in \[0, 1\)')])
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        BinaryCrossEntropy(**options)


# --- the answer


def test_probabilities_and_the_classes_to_name():
    logits = jnp.array([[1.0, 3.0, -2.0, 0.5]])
    p = np.asarray(Softmax().probabilities(logits))[0]
    np.testing.assert_allclose(p, np.exp(logits[0]) / np.exp(logits[0]).sum(), rtol=1e-6)
    assert Softmax().likely(p, 3).tolist() == [1, 0, 3]
    p = np.asarray(Sigmoid().probabilities(logits))[0]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits[0])), rtol=1e-6)
    assert Sigmoid().likely(p, 1).tolist() == [1, 0, 3]  # all that are likelier than not
    assert Sigmoid().likely(p[2:3], 5).tolist() == []


@pytest.mark.parametrize('task', [Softmax(), Sigmoid()])
def test_the_average_of_answers_is_of_probabilities_and_keeps_what_is_nearly_certain(task):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32) * 3
    expected = np.mean(jax.vmap(task.probabilities)(logits), 0)
    np.testing.assert_allclose(task.probabilities(task.average(logits)), expected, atol=1e-6)
    sure = np.array([[[30.0, -40.0]], [[30.0, -40.0]]], np.float32)
    found = np.asarray(task.average(sure))[0]
    np.testing.assert_allclose(found - found[0], sure[0, 0] - 30, atol=1e-4)
    if task.multi_label:
        np.testing.assert_allclose(found, sure[0, 0], atol=1e-4)
