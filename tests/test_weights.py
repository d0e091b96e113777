"""Weights of PyTorch models come in and go out to the bit, and what does not fit is named."""

import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import ROOT, environment
from safetensors.numpy import load_file, save_file

from imagenet_jax import models, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.errors import UserError

CIFAR_WEIGHTS = ROOT.parent / 'shared' / 'data' / 'weights' / 'resnet20_cifar10.th'


def random_variables(model, size=32, seed=0):
    """Variables with no two values alike, and statistics as a trained model has."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)
    return {'params': {}, 'batch_stats': {}, **variables}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope='module')
def resnet20():
    """(model, its variables, the same as a state_dict)"""
    model = models.create('resnet20_cifar')
    variables = random_variables(model)
    return model, variables, weights.to_torch(model, variables)


# --- the rule


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'resnet20_cifar'])
def test_round_trip(name):
    model = models.create(name)
    variables = random_variables(model)
    state_dict = weights.to_torch(model, variables)
    assert_same(weights.from_torch(model, state_dict), variables)
    counters = {n: v for n, v in state_dict.items() if n.endswith('num_batches_tracked')}
    assert len(counters) == sum(n.endswith('running_var') for n in state_dict)
    assert all(v.dtype == np.int64 and v.shape == () and v == 0 for v in counters.values())
    assert all(v.dtype == np.float32 and v.flags.c_contiguous for n, v in state_dict.items() if n not in counters)
    assert_same(weights.to_torch(model, jax.tree.map(jnp.asarray, variables)), state_dict)


def test_names_and_axes(resnet20):
    _, variables, state_dict = resnet20
    kernel = variables['params']['layer2']['0']['conv1']['kernel']
    np.testing.assert_array_equal(state_dict['layer2.0.conv1.weight'], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(state_dict['linear.weight'], variables['params']['linear']['kernel'].T)
    norm = variables['batch_stats']['bn1']
    np.testing.assert_array_equal(state_dict['bn1.running_mean'], norm['mean'])
    np.testing.assert_array_equal(state_dict['bn1.running_var'], norm['var'])
    np.testing.assert_array_equal(state_dict['bn1.weight'], variables['params']['bn1']['scale'])


class Exceptional(nn.Module):
    """A flattened convolution, groups, a module under another name, an array of its own, no norm."""
    num_classes: int = 3
    flattens: ClassVar = {'classifier.1': (4, 6, 5)}
    renames: ClassVar = {'stem': 'features.0', 'gamma': 'layer_scale', 'dense.kernel': 'head.projection'}

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (5, 5), name='stem')(images[:, :6, :5])
        x = nn.Conv(4, (3, 3), feature_group_count=2, name='grouped')(x)
        x = x * self.param('gamma', nn.initializers.ones, (4,))
        x = nn.Dense(7, name='classifier.1')(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, use_bias=False, name='dense')(x)


def test_exceptions():
    model = Exceptional()
    variables = random_variables(model)
    state_dict = weights.to_torch(model, variables)
    assert {name: value.shape for name, value in state_dict.items()} == {
        'features.0.weight': (4, 3, 5, 5), 'features.0.bias': (4,), 'grouped.weight': (4, 2, 3, 3),
        'grouped.bias': (4,), 'layer_scale': (4,), 'classifier.1.weight': (7, 120), 'classifier.1.bias': (7,),
        'head.projection': (3, 7)}
    assert_same(weights.from_torch(model, state_dict), variables)
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 4)).astype(np.float32)
    ours = x.reshape(2, -1) @ variables['params']['classifier.1']['kernel']
    theirs = x.transpose(0, 3, 1, 2).reshape(2, -1) @ state_dict['classifier.1.weight'].T
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


class AnySize(Exceptional):
    """Shapes depend on the image: right for 32 pixels, not for 224."""
    flattens: ClassVar = {'dense': (2, 8, 8)}
    renames: ClassVar = {}

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(2, (4, 4), (4, 4), name='stem')(images)
        return nn.Dense(self.num_classes, name='dense')(x.reshape(x.shape[0], -1))


def test_image_size_is_the_one_that_flattens_fits():
    model = AnySize()
    variables = random_variables(model)
    assert variables['params']['dense']['kernel'].shape == (128, 3)
    assert_same(weights.from_torch(model, weights.to_torch(model, variables)), variables)


# --- what comes in


@pytest.mark.parametrize('wrap', [
    lambda d: {'state_dict': d, 'epoch': 3, 'arch': 'resnet'}, lambda d: {'model': d}, lambda d: {'model_state': d},
    lambda d: {'net': d, 'acc': 91.0}, lambda d: {'state_dict': {'model': d}},
    lambda d: {f'module.{n}': v for n, v in d.items()}, lambda d: {f'_orig_mod.{n}': v for n, v in d.items()},
    lambda d: {'state_dict': {f'_orig_mod.module.{n}': v for n, v in d.items()}},
    lambda d: {n: v for n, v in d.items() if 'num_batches_tracked' not in n}])
def test_forms_of_state_dict(resnet20, wrap):
    model, variables, state_dict = resnet20
    assert_same(weights.from_torch(model, wrap(state_dict)), variables)


def test_tensors_and_other_dtypes(resnet20):
    torch = pytest.importorskip('torch')
    model, variables, state_dict = resnet20
    tensors = {name: torch.from_numpy(value) for name, value in state_dict.items()}
    assert_same(weights.from_torch(model, {n: torch.nn.Parameter(v.double()) for n, v in tensors.items()}), variables)
    rounded = weights.from_torch(model, {n: v.bfloat16() for n, v in tensors.items()})
    assert_same(rounded, jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), variables))


def test_misfits_are_listed_all_at_once(resnet20):
    model, _, state_dict = resnet20
    changed = {n: v for n, v in state_dict.items() if not n.startswith('bn1.')}
    changed |= {'linear.weight': np.zeros((5, 64)), 'linear.bias': np.zeros(5), 'extra.weight': np.zeros((2, 3)),
                'extra.num_batches_tracked': np.zeros(()), 'epoch': 3}
    with pytest.raises(UserError) as caught:
        weights.from_torch(model, changed)
    assert str(caught.value).splitlines() == [
        'the state_dict does not fit CifarResNet:',
        '  missing: bn1.bias (16,)', '  missing: bn1.running_mean (16,)', '  missing: bn1.running_var (16,)',
        '  missing: bn1.weight (16,)', '  unexpected: epoch ()', '  unexpected: extra.num_batches_tracked ()',
        '  unexpected: extra.weight (2, 3)', '  linear.bias: has shape (5,), the model (10,)',
        '  linear.weight: has shape (5, 64), the model (10, 64)']


def test_misfits_of_variables(resnet20):
    model, variables, _ = resnet20
    with pytest.raises(UserError, match=r'variables do not fit CifarResNet:\n  missing: batch_stats/bn1/mean \(16,'):
        weights.to_torch(model, {'params': variables['params']})


@pytest.mark.parametrize(('state_dict', 'message'), [
    ([1, 2], 'a state_dict is a dict of arrays by name; this is of type list'),
    ({'a': np.zeros(1), 'module.a': np.zeros(1)}, 'differ only in a prefix')])
def test_no_state_dict(resnet20, state_dict, message):
    with pytest.raises(UserError, match=message):
        weights.from_torch(resnet20[0], state_dict)


def test_published_cifar_weights():
    pytest.importorskip('torch')
    if not CIFAR_WEIGHTS.exists():
        pytest.skip(f'no {CIFAR_WEIGHTS}')
    variables = weights.from_torch(models.create('resnet20_cifar'), weights.read(CIFAR_WEIGHTS))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 269_722
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert all((leaf > 0).all() for leaf in jax.tree.leaves(
        jax.tree.map(lambda norm: norm['var'], variables['batch_stats'], is_leaf=lambda node: 'var' in node)))


# --- files


def test_safetensors(resnet20, tmp_path):
    path = tmp_path / 'new' / 'x.safetensors'
    weights.write(path, resnet20[2])
    assert_same(weights.read(path), resnet20[2])
    assert [p.name for p in path.parent.iterdir()] == ['x.safetensors']


def test_safetensors_of_half_precision(tmp_path):
    values = {'a': np.float16([1.5, 2]), 'b': np.asarray([1.5, 3], jnp.bfloat16), 'c': np.int64([7])}
    save_file({'a': values['a'], 'c': values['c']}, tmp_path / 'x.safetensors')
    assert_same(weights.read(tmp_path / 'x.safetensors'), {'a': np.float32([1.5, 2]), 'c': np.int64([7])})
    # Not every version of the library writes bfloat16 from numpy: the file by hand.
    header = b'{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / 'y.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + values['b'].tobytes())
    assert_same(weights.read(tmp_path / 'y.safetensors'), {'b': np.float32([1.5, 3])})


@pytest.mark.parametrize('suffix', ['.pth', '.tar'])
def test_torch_file(resnet20, tmp_path, suffix):
    torch = pytest.importorskip('torch')
    model, variables, state_dict = resnet20
    path = tmp_path / f'x{suffix}'
    weights.write(path, state_dict)
    assert {n: v.dtype for n, v in torch.load(path, weights_only=True).items()} == {
        n: torch.int64 if n.endswith('num_batches_tracked') else torch.float32 for n in state_dict}
    assert_same(weights.from_torch(model, weights.read(path)), variables)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(resnet20, value):
    model, _, state_dict = resnet20
    spoiled = state_dict | {name: state_dict[name] * value for name in ('conv1.weight', 'bn1.running_var')}
    with pytest.raises(UserError, match=r'NaN or infinity, in\n  bn1\.running_var\n  conv1\.weight$'):
        weights.from_torch(model, spoiled)


@pytest.mark.parametrize('value', [[[1.0], [2.0, 3.0]], ['x'] * 16, np.ones(16, np.complex64)],
                         ids=['ragged', 'text', 'complex'])
def test_what_is_no_array_of_numbers_is_named(resnet20, value):
    model, _, state_dict = resnet20
    with pytest.raises(UserError, match=r'bn1\.bias'):
        weights.from_torch(model, state_dict | {'bn1.bias': value})
    with pytest.raises(UserError, match=r'unexpected: history'):
        weights.from_torch(model, state_dict | {'history': value})


def test_tensors_that_are_no_arrays_are_named(resnet20):
    torch = pytest.importorskip('torch')
    model, _, state_dict = resnet20
    for value in (torch.ones(16).to_sparse(), torch.ones(16, device='meta'), torch.ones(16, dtype=torch.complex64)):
        with pytest.raises(UserError, match=r'bn1\.bias of the state_dict is no dense array of real numbers'):
            weights.from_torch(model, state_dict | {'bn1.bias': value})


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    (tmp_path / 'folder.safetensors').mkdir()
    for path in (tmp_path / 'file' / 'x.safetensors', tmp_path / 'folder.safetensors'):
        with pytest.raises(UserError, match=rf'cannot write {re.escape(str(path))}: '):
            weights.write(path, {'a': np.ones(2, np.float32)})
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['file', 'folder.safetensors']


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.safetensors'
    weights.write(path, {'a': np.ones(2, np.float32)})
    with pytest.raises(Exception):  # noqa: B017  whatever the library raises
        weights.write(path, {'a': 'not an array'})
    assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']
    assert load_file(path)['a'].tolist() == [1, 1]


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('x.safetensors', b'no weights at all', r'x\.safetensors cannot be read: SafetensorError: '),
    ('x.safetensors', b'', r'x\.safetensors cannot be read'),
    ('x.h5', b'', r'x\.h5: weights files end in \.safetensors, \.pth, ')])
def test_unreadable(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        weights.read(tmp_path / name)


@pytest.mark.parametrize('content', [b'', b'no pickle', b'PK\x03\x04 and nothing more'])
def test_unreadable_torch_file(tmp_path, content):
    pytest.importorskip('torch')
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'x\.pth cannot be read'):
        weights.read(tmp_path / 'x.pth')


def test_pickled_code_is_not_run(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pt')
    with pytest.raises(UserError, match=r'x\.pt holds more than tensors, and reading Python objects may run code'):
        weights.read(tmp_path / 'x.pt')


@pytest.mark.parametrize('act', [weights.read, lambda path: weights.write(path, {})])
def test_without_torch(tmp_path, monkeypatch, act):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(UserError, match=re.escape("needs PyTorch: pip install 'imagenet_jax[torch]'")):
        act(tmp_path / 'x.pth')


# --- where files are


def test_find(tmp_path, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    with pytest.raises(UserError, match=r'holds none of model\.safetensors'):
        weights.find(str(tmp_path))
    with pytest.raises(UserError, match='no such file'):
        weights.find(str(tmp_path / 'x.pth'))
    for name in ('pytorch_model.bin', 'other.safetensors', 'model.safetensors'):  # each goes before the ones before
        (tmp_path / name).write_bytes(b'abc')
        path, origin = weights.find(str(tmp_path))
        assert path == tmp_path / name
    assert origin == {'source': str(tmp_path),
                      'sha256': 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'}
    assert f'{path}: sha256 ba78' in caplog.text
    path.rename(tmp_path / 'another.safetensors')
    with pytest.raises(UserError, match=r'several: another\.safetensors, other\.safetensors; name one'):
        weights.find(str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with one snapshot in it, and no network."""
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    revision = '0123456789abcdef0123456789abcdef01234567'
    repository = tmp_path / 'models--owner--tiny.a1'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(revision)
    snapshot = repository / 'snapshots' / revision
    snapshot.mkdir(parents=True)
    save_file({'a': np.ones(2, np.float32)}, snapshot / 'model.safetensors')
    (snapshot / 'other.bin').write_bytes(b'abc')
    return snapshot


@pytest.mark.parametrize(('source', 'name'), [
    ('hf:owner/tiny.a1', 'model.safetensors'), ('hf:owner/tiny.a1@main', 'model.safetensors'),
    ('hf:owner/tiny.a1@0123456789abcdef0123456789abcdef01234567', 'model.safetensors'),
    ('hf:owner/tiny.a1/other.bin', 'other.bin'), ('hf:owner/tiny.a1@main/other.bin', 'other.bin')])
def test_find_in_the_hub(hub, source, name, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    path, origin = weights.find(source)
    assert path == hub / name and origin['revision'] == hub.name and origin['source'] == source
    assert f'revision {hub.name}, sha256 ' in caplog.text


@pytest.mark.parametrize(('source', 'message'), [
    ('hf:tiny', 'must be hf:OWNER/NAME'), ('hf:owner/absent', 'hf:owner/absent: LocalEntryNotFoundError'),
    ('hf:owner/tiny.a1@v2', 'hf:owner/tiny.a1@v2: LocalEntryNotFoundError'),
    ('hf:owner/tiny.a1/absent.bin', 'no such file')])
def test_not_in_the_hub(hub, source, message):
    with pytest.raises(UserError, match=message):
        weights.find(source)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=re.escape("pip install 'imagenet_jax[hub]'")):
        weights.find('hf:timm/resnet50.a1_in1k')


# --- the command


def command(*arguments, code=0):
    done = subprocess.run([sys.executable, '-m', 'imagenet_jax', 'weights', *map(str, arguments)], cwd=ROOT,
                          env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == code, done.stdout
    return done.stdout


def test_import_load_export(tmp_path):
    model = models.create('resnet20_cifar', num_classes=7, shortcut='B')
    variables = random_variables(model)
    given, folder, back = tmp_path / 'in.safetensors', tmp_path / 'imported', tmp_path / 'out.safetensors'
    weights.write(given, weights.to_torch(model, variables))
    arguments = ['import', '--model', 'resnet20_cifar', '--input', given, '--output', folder]
    refused = command(*arguments, code=1)
    assert 'linear.bias: has shape (7,), the model (10,)' in refused and 'Traceback' not in refused
    assert not Path(folder).exists()
    arguments += ['--num-classes', '7', '--option', 'shortcut=B']
    output = command(*arguments)
    assert 'sha256' in output and 'parameters of' in output
    config, loaded = load_variables(folder)
    assert config == {'name': 'resnet20_cifar', 'num_classes': 7, 'shortcut': 'B'}
    assert_same(loaded, variables)
    assert 'holds a run or an import already' in command(*arguments, code=1)
    command('export', '--checkpoint', folder, '--output', back)
    assert_same(load_file(back), load_file(given))


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--model', 'resnet5', '--input', 'x.pth'], "unknown model.name 'resnet5'"),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'shortcut=B'], "model.shortcut='B' is read by"),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'name=resnet50'], '--option.name'),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'norm'], 'must be KEY=VALUE'),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'zero_gamma=true'], 'x.pth: no such file')])
def test_import_refuses(tmp_path, monkeypatch, capsys, arguments, message):
    from imagenet_jax.commands import weights as weights_command
    monkeypatch.setattr(sys, 'argv', ['weights', 'import', *arguments, '--output', str(tmp_path / 'new')])
    with pytest.raises(SystemExit, match=f'error: .*{re.escape(message)}'):
        weights_command.main()
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('arguments', [[], ['import'], ['export']])
def test_help_shows_examples(arguments, monkeypatch, capsys):
    from imagenet_jax.commands import weights as weights_command
    monkeypatch.setattr(sys, 'argv', ['weights', *arguments, '--help'])
    with pytest.raises(SystemExit, match='0'):
        weights_command.main()
    assert f'python -m imagenet_jax weights {"".join(arguments)}' in capsys.readouterr().out
