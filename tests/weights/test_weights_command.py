"""The command weights: import and export."""

import re
import sys
from pathlib import Path

import pytest
from fixtures_commands import called, ran
from fixtures_weights import assert_same, random_variables
from safetensors.numpy import load_file

from imagenet_jax import models, weight_files, weights
from imagenet_jax.checkpoint import load_variables
from imagenet_jax.command_line import running


def test_import_load_export(tmp_path, monkeypatch, capsys):
    model = models.create('resnet20_cifar', num_classes=7, shortcut='B')
    variables = random_variables(model)
    given, folder, back = tmp_path / 'in.safetensors', tmp_path / 'imported', tmp_path / 'out.safetensors'
    weight_files.write(given, weights.to_torch(model, variables))
    arguments = ['import', '--model', 'resnet20_cifar', '--input', given, '--output', folder]
    refused, _ = called(monkeypatch, capsys, 'weights', *arguments)
    assert refused.startswith('error: ') and 'linear.bias: has shape (7,), the model (10,)' in refused
    assert not Path(folder).exists()
    arguments += ['--num-classes', '7', '--option', 'shortcut=B']
    output = ran('weights', *arguments)
    assert 'sha256' in output and 'parameters of' in output
    config, loaded = load_variables(folder)
    assert config == {'name': 'resnet20_cifar', 'num_classes': 7, 'shortcut': 'B'}
    assert_same(loaded, variables)
    assert 'holds a run or an import already' in called(monkeypatch, capsys, 'weights', *arguments)[0]
    code, out = called(monkeypatch, capsys, 'weights', 'export', '--checkpoint', folder, '--output', back)
    assert code is None and out.endswith(f' are in {back}\n')
    assert_same(load_file(back), load_file(given))


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--model', 'resnet5', '--input', 'x.pth'], "unknown model.name 'resnet5'"),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'alpha=0.5'], 'model.alpha=0.5 is read by'),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'name=resnet50'], '--option.name'),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'norm'], 'must be KEY=VALUE'),
    (['--model', 'resnet18', '--input', 'x.pth', '--option', 'zero_gamma=true'], 'x.pth: no such file')])
def test_import_refuses(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, 'argv', ['weights', 'import', *arguments, '--output', str(tmp_path / 'new')])
    with pytest.raises(SystemExit, match=f'error: .*{re.escape(message)}'):
        running.run('weights')
    assert not (tmp_path / 'new').exists()


def test_import_refuses_a_folder_that_it_would_not_find_again(tmp_path, monkeypatch):
    output = tmp_path / 'a[1]'
    arguments = ['--model', 'resnet18', '--input', 'x.pth', '--output', str(output)]
    monkeypatch.setattr(sys, 'argv', ['weights', 'import', *arguments])
    with pytest.raises(SystemExit, match=r'error: .*a\[1\] has \[ and \] in its path'):
        running.run('weights')
    assert not output.exists()


@pytest.mark.parametrize('arguments', [[], ['import'], ['export']])
def test_help_shows_examples(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['weights', *arguments, '--help'])
    with pytest.raises(SystemExit, match='0'):
        running.run('weights')
    assert f'python -m imagenet_jax weights {"".join(arguments)}' in capsys.readouterr().out
