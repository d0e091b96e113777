"""The models command: the list, and one model's layers.

After a change of a model that is meant: python tests/models/test_summary.py writes the list's sizes anew.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagenet_jax import __main__, catalog, models, weights
from imagenet_jax.errors import UserError
from imagenet_jax.models import summary

ROOT = Path(__file__).parent.parent.parent
FEW = ['alexnet', 'mobilenet_v3_small', 'resnet20_cifar']


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process; answers what it prints."""
    def _run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['imagenet_jax', 'models', *arguments])
        with pytest.raises(SystemExit) as caught:
            __main__.main()
        if caught.value.code:
            raise caught.value
        return capsys.readouterr().out
    return _run


# --- counting


@pytest.mark.parametrize(('name', 'options', 'size', 'parameters', 'multiply_adds'), [
    ('resnet50', {}, 224, 25_557_032, 4_089_184_256),
    ('resnet20_cifar', {'num_classes': 100}, 32, 269_722 + 90 * 65, 40_551_040 + 90 * 64),
    ('alexnet', {}, 224, 61_100_840, 714_188_480)])
def test_total(name, options, size, parameters, multiply_adds):
    assert summary.total(summary.layers(models.create(name, **options), size)) == (parameters, multiply_adds)


def test_layers():
    rows = {row.path: row for row in summary.layers(models.create('mobilenet_v1', num_classes=7), 64)}
    assert rows['conv_stem'] == summary.Layer('conv_stem', 'Conv', (32, 32, 32), 9 * 3 * 32, 32 * 32 * 9 * 3 * 32)
    assert rows['bn1'] == summary.Layer('bn1', 'BatchNorm', (32, 32, 32), 64, 0)
    # Depthwise: each channel sees itself alone.
    assert rows['blocks/0/0/conv_dw'] == summary.Layer('blocks/0/0/conv_dw', 'Conv', (32, 32, 32), 288, 32 * 32 * 288)
    assert rows['classifier'] == summary.Layer('classifier', 'Dense', (7,), 1024 * 7 + 7, 1024 * 7)
    assert next(iter(rows)) == 'conv_stem' and list(rows)[-1] == 'classifier'


def test_pooling_by_matrix_is_no_layer():
    """At other sizes AlexNet averages over windows with two matrix products."""
    rows = summary.layers(models.create('alexnet'), 256)
    assert sum(row.multiply_adds for row in rows if row.kind == 'Dense') == 9216 * 4096 + 4096 * 4096 + 4096 * 1000


def test_layers_are_the_same_with_remat():
    plain, remat = (summary.layers(models.create('resnet20_cifar', remat=on), 32) for on in (False, True))
    assert plain == remat


def test_too_small_images():
    with pytest.raises(UserError, match='images too small'):
        summary.layers(models.create('vgg11'), 8)


# --- the command


def counted(name):
    """What sizes.json keeps of a model."""
    model = models.create(name)
    arrays = weights._arrays(model).values()
    return catalog.Sizes(*summary.total(summary.layers(model, catalog.image_size(name))), len(arrays),
                         sum(math.prod(array.torch_shape) for array in arrays))


@pytest.mark.parametrize('names', [FEW, pytest.param(models.names(), marks=pytest.mark.slow)], ids=['few', 'all'])
def test_kept_sizes_are_the_models(names):
    """Where this fails and the model is right: python tests/models/test_summary.py"""
    assert {name: catalog.sizes()[name] for name in names} == {name: counted(name) for name in names}


def test_list(run):
    head, *lines = run().splitlines()
    assert head.split()[:4] == ['model', 'parameters', 'MACs', 'input']
    assert [line.split()[0] for line in lines] == models.names()
    assert max(map(len, [head, *lines])) <= 80
    found = {line.split()[0]: line.split()[1:] for line in lines}
    assert found['regnetx_002'] == ['2.68', 'M', '199', 'M', '224', 'resnet50']
    assert found['resnet20_cifar'] == ['0.27', 'M', '41', 'M', '32', '91.25', 'CIFAR-10', 'cifar10_resnet20']
    rows = json.loads(run('--json'))
    assert [row['name'] for row in rows] == models.names()
    row, = (row for row in rows if row['name'] == 'alexnet')
    assert row == {'name': 'alexnet', 'parameters': 61_100_840, 'multiply_adds': 714_188_480, 'image_size': 224,
                   'published_top1': 56.52, 'published_top5': 79.07, 'published_on': 'ImageNet',
                   'published_source': 'torchvision', 'config': 'configs/alexnet.py'}
    row, = json.loads(run('regnetx_002*', '--json'))
    assert row['published_top1'] is None and row['published_on'] is None


def test_list_of_patterns(run):
    """In the order of the whole list, each once."""
    found = [line.split()[0] for line in run('vgg16*', 'resnet*4_cifar', 'vgg16').splitlines()[1:]]
    assert found == [name for name in models.names() if name in ('resnet44_cifar', 'vgg16', 'vgg16_bn')]


def test_list_imports_no_jax():
    code = ('import sys; sys.argv = ["x", "models", "vgg*"]\nfrom imagenet_jax import __main__\n'
            'try: __main__.main()\nexcept SystemExit: print({"jax", "flax", "numpy"} & set(sys.modules))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('set()\n')


def test_one_model(run):
    head, *lines, last = run('resnet20_cifar').splitlines()
    assert head.split() == ['layer', 'kind', 'output', 'parameters', 'MACs']
    assert lines[0].split() == ['conv1', 'Conv', '32', 'x', '32', 'x', '16', '432', '442,368']
    assert last.split()[-2:] == ['269,722', '40,551,040']
    assert max(map(len, [head, *lines, last])) <= 80


def test_one_model_with_options(run):
    table = json.loads(run('resnet20_cifar', '--option', 'shortcut=B', '--num-classes', '3', '--image-size', '16',
                           '--json'))
    assert table['options'] == {'shortcut': 'B', 'num_classes': 3} and table['image_size'] == 16
    rows = {row['path']: row for row in table['layers']}
    assert rows['layer2/0/downsample/0']['shape'] == [8, 8, 32]
    assert rows['linear'] == {'path': 'linear', 'kind': 'Dense', 'shape': [3], 'parameters': 195, 'multiply_adds': 192}
    assert table['parameters'] == sum(row['parameters'] for row in rows.values())
    assert table['multiply_adds'] == sum(row['multiply_adds'] for row in rows.values())


@pytest.mark.parametrize(('arguments', 'message'), [
    (['resnet5'], r"unknown model.name 'resnet5'; did you mean .*resnet50"),
    (['resnte*'], r"unknown model 'resnte\*'; did you mean resnet"), (['vgg*', 'resnet5'], "unknown model 'resnet5'"),
    (['resnet50', '--option', 'shortcutt=B'], r"option model.shortcutt: nothing reads 'shortcutt'"),
    (['resnet50', '--option', 'zero_gamma'], r'--option zero_gamma: must be KEY=VALUE'),
    (['vgg11', '--image-size', '8'], 'images too small')])
def test_errors(run, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert re.search(message, caught.value.code)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--num-classes', '3'], 'are for one model'), (['resnet50', '--image-size', '0'], 'no number of pixels')])
def test_usage_errors(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err


if __name__ == '__main__':
    sizes = ',\n'.join(f' "{name}": {list(counted(name))}' for name in models.names())
    (ROOT / 'imagenet_jax' / 'sizes.json').write_text(f'{{\n{sizes}\n}}\n')
