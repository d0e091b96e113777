"""What half precision gives on this CPU, as `runtime.configure_jax` sets its compiler up: numbers, for every block."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

from imagenet_jax import models, runtime
from imagenet_jax.optim import SGD
from imagenet_jax.step import TrainStep, make_mesh
from imagenet_jax.task import Softmax

# Each kind of block once, in its shortest form: model -> (side of the images, what makes it short).
SHORT = {
    'resnet8_cifar': (32, {}), 'alexnet_bn': (64, {}), 'zfnet_bn': (64, {}), 'vgg11_bn': (64, {}),
    **dict.fromkeys(('resnet18', 'resnet50', 'resnet18v2', 'resnet50v2', 'seresnet50', 'resnest50', 'resnest50d',
                     'oct_resnet50'), (64, {'depths': (1, 1, 1, 1)})),
    'regnety_002': (64, {'depth': 4}), 'mobilenet_v1': (64, {'width': 0.25}), 'mobilenet_v2': (64, {'width': 0.25}),
    'mobilenet_v3_small': (64, {}), 'ghostnet_100': (64, {'width': 0.25})}
CLASSES = 10


@pytest.mark.skipif(tuple(map(int, jaxlib.__version__.split('.')[:2])) < (0, 11), reason='it came with jaxlib 0.11')
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', SHORT)
def test_numbers_are_finite(name, dtype):
    size, options = SHORT[name]
    model = models.create(name, num_classes=CLASSES, dtype=dtype).clone(**options)
    training = TrainStep(model=model, optimizer=SGD(), schedule=lambda updates: 0.01, task=Softmax(),
                         normalize=lambda x: x / 128.0 - 1, mesh=make_mesh(jax.devices()[:1]))
    images = np.random.default_rng(0).integers(255, size=(4, size, size, 3), dtype=np.uint8)
    evaluate = jax.jit(lambda variables: model.apply(variables, images / np.float32(128) - 1, train=False))
    state = training.init(0, size)
    assert np.isfinite(evaluate(state.variables)).all()
    state, metrics = training(state, {'image': images, 'label': np.arange(4, dtype=np.int32)})
    # In float16 the first scales overflow, which skips a step; the loss itself has to be a number.
    assert np.isfinite(metrics['loss']) and (dtype == 'float16' or metrics['bad_steps'] == 0)
    assert np.isfinite(evaluate(state.variables)).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables))


# --- how the compiler is set up

FLAG = '--xla_cpu_experimental_ynn_fusion_type=-reduce'


@pytest.fixture
def flags(monkeypatch):
    """XLA_FLAGS after configure_jax, by platform, version and flags before."""
    platforms_before = jax.config.jax_platforms

    def configured(platforms, version, before='', deterministic=False):
        monkeypatch.setenv('XLA_FLAGS', before)
        monkeypatch.setattr(jaxlib, '__version__', version)
        jax.config.update('jax_platforms', platforms)
        runtime.configure_jax(deterministic, compilation_cache=False)
        return runtime.os.environ['XLA_FLAGS']
    yield configured
    jax.config.update('jax_platforms', platforms_before)


def test_flag_is_for_cpus_of_new_versions_alone(flags, monkeypatch):
    monkeypatch.setattr(runtime, '_knows', lambda flag: True)
    assert flags('cpu', '0.11.0') == flags(None, '0.12.0.1') == FLAG
    assert flags('cpu', '0.10.2') == flags('cuda', '0.12.0') == ''
    assert flags('cuda', '0.12.0', deterministic=True) == '--xla_gpu_deterministic_ops=true'
    mine = '--xla_cpu_experimental_ynn_fusion_type=dot'
    assert flags('cpu', '0.12.0', mine) == mine  # what the user says stands
    monkeypatch.setattr(runtime, '_knows', lambda flag: False)
    assert flags('cpu', '1.0.0') == ''  # XLA would end the process


def test_what_the_library_knows():
    assert runtime._knows('xla_cpu_enable_fast_math') and not runtime._knows('xla_cpu_no_such_flag_of_xla')
