"""Files of weights: read, written, found on disk and in a hub's cache."""

import argparse
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_weights import assert_same
from safetensors.numpy import load_file, save_file

from imagenet_jax import weight_files, weights
from imagenet_jax.errors import UserError


def test_safetensors(resnet20, tmp_path):
    path = tmp_path / 'new' / 'x.safetensors'
    weight_files.write(path, resnet20[2])
    assert_same(weight_files.read(path), resnet20[2])
    assert [p.name for p in path.parent.iterdir()] == ['x.safetensors']
    (tmp_path / 'plain').write_bytes(b'')
    assert path.stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_safetensors_of_half_precision(tmp_path):
    values = {'a': np.float16([1.5, 2]), 'b': np.asarray([1.5, 3], jnp.bfloat16), 'c': np.int64([7])}
    save_file({'a': values['a'], 'c': values['c']}, tmp_path / 'x.safetensors')
    assert_same(weight_files.read(tmp_path / 'x.safetensors'), {'a': np.float32([1.5, 2]), 'c': np.int64([7])})
    # Not every version of the library writes bfloat16 from numpy: the file by hand.
    header = b'{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / 'y.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + values['b'].tobytes())
    assert_same(weight_files.read(tmp_path / 'y.safetensors'), {'b': np.float32([1.5, 3])})


@pytest.mark.parametrize('suffix', ['.pth', '.tar'])
def test_torch_file(resnet20, tmp_path, suffix):
    torch = pytest.importorskip('torch')
    model, variables, state_dict = resnet20
    path = tmp_path / f'x{suffix}'
    weight_files.write(path, state_dict)
    assert {n: v.dtype for n, v in torch.load(path, weights_only=True).items()} == {
        n: torch.int64 if n.endswith('num_batches_tracked') else torch.float32 for n in state_dict}
    assert_same(weights.from_torch(model, weight_files.read(path)), variables)


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    (tmp_path / 'folder.safetensors').mkdir()
    for path in (tmp_path / 'file' / 'x.safetensors', tmp_path / 'folder.safetensors'):
        with pytest.raises(UserError, match=rf'cannot write {re.escape(str(path))}: '):
            weight_files.write(path, {'a': np.ones(2, np.float32)})
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['file', 'folder.safetensors']


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.safetensors'
    weight_files.write(path, {'a': np.ones(2, np.float32)})
    with pytest.raises(Exception):  # noqa: B017  whatever the library raises
        weight_files.write(path, {'a': 'not an array'})
    assert [p.name for p in tmp_path.iterdir()] == ['x.safetensors']
    assert load_file(path)['a'].tolist() == [1, 1]


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('x.safetensors', b'no weights at all', r'x\.safetensors cannot be read: SafetensorError: '),
    ('x.safetensors', b'', r'x\.safetensors cannot be read'),
    ('x.h5', b'', r'x\.h5: weights files end in \.safetensors, \.pth, ')])
def test_unreadable(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        weight_files.read(tmp_path / name)


@pytest.mark.parametrize('content', [b'', b'no pickle', b'PK\x03\x04 and nothing more'])
def test_unreadable_torch_file(tmp_path, content):
    pytest.importorskip('torch')
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'x\.pth cannot be read'):
        weight_files.read(tmp_path / 'x.pth')


def test_pickled_code_is_not_run(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pt')
    with pytest.raises(UserError, match=r'x\.pt holds more than tensors, torch\.\S+Linear, and reading Python objects'):
        weight_files.read(tmp_path / 'x.pt')


def test_what_training_scripts_save_beside_the_weights_is_harmless(tmp_path):
    torch = pytest.importorskip('torch')
    beside = {'args': argparse.Namespace(out=Path('x'), lr=0.1), 'best': np.float64(3)}
    torch.save({'model': {'a': torch.ones(2)}, **beside}, tmp_path / 'x.pth')
    assert weight_files.read(tmp_path / 'x.pth')['best'] == 3


@pytest.mark.parametrize('act', [weight_files.read, lambda path: weight_files.write(path, {})])
def test_without_torch(tmp_path, monkeypatch, act):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(UserError, match=re.escape("needs PyTorch: pip install 'imagenet_jax[torch]'")):
        act(tmp_path / 'x.pth')


def test_find(tmp_path, caplog):
    caplog.set_level('INFO', 'imagenet_jax')
    with pytest.raises(UserError, match=r'holds none of model\.safetensors'):
        weight_files.find(str(tmp_path))
    with pytest.raises(UserError, match='no such file'):
        weight_files.find(str(tmp_path / 'x.pth'))
    for name in ('pytorch_model.bin', 'other.safetensors', 'model.safetensors'):  # each goes before the ones before
        (tmp_path / name).write_bytes(b'abc')
        path, origin = weight_files.find(str(tmp_path))
        assert path == tmp_path / name
    assert origin == {'source': str(tmp_path),
                      'sha256': 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'}
    assert f'{path}: sha256 ba78' in caplog.text
    path.rename(tmp_path / 'another.safetensors')
    with pytest.raises(UserError, match=r'several: another\.safetensors, other\.safetensors; name one'):
        weight_files.find(str(tmp_path))


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
    path, origin = weight_files.find(source)
    assert path == hub / name and origin['revision'] == hub.name and origin['source'] == source
    assert f'revision {hub.name}, sha256 ' in caplog.text


@pytest.mark.parametrize(('source', 'message'), [
    ('hf:tiny', 'must be hf:OWNER/NAME'), ('hf:owner/absent', 'hf:owner/absent: LocalEntryNotFoundError'),
    ('hf:owner/tiny.a1@v2', 'hf:owner/tiny.a1@v2: LocalEntryNotFoundError'),
    ('hf:owner/tiny.a1/absent.bin', 'no such file')])
def test_not_in_the_hub(hub, source, message):
    with pytest.raises(UserError, match=message):
        weight_files.find(source)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=re.escape("pip install 'imagenet_jax[hub]'")):
        weight_files.find('hf:timm/resnet50.a1_in1k')
