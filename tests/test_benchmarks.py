"""Benchmarks that take minutes say at once what they would not write."""

import re
import runpy
import sys

import pytest
from runs import ROOT

FILE, FOLDER = 'argument --output: cannot write /dev/null/x.json', 'cannot write /dev/null'


@pytest.mark.parametrize(('name', 'arguments', 'message'), [
    *((name, ('--output', '/dev/null/x.json'), FILE) for name in (
        'augment', 'conv_forms', 'gpu_program', 'hosts', 'input_pipeline', 'loop', 'remat', 'scale', 'serve', 'startup',
        'train_step')),
    ('curve', ('run', '--output', '/dev/null/x.json'), FILE),
    ('pixels', ('--data', '.', '--output', '/dev/null/x.json'), FILE),
    ('gpu_program', ('--text', '/dev/null'), FOLDER),
    ('train_step', ('--trace', '/dev/null'), FOLDER)])
def test_wrong_arguments(name, arguments, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *arguments])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'benchmarks' / f'{name}.py'), run_name='__main__')
    assert re.search(message, capsys.readouterr().err)


def test_training_on_a_cpu_beside_pytorch(monkeypatch, capsys):
    pytest.importorskip('torch')
    test_wrong_arguments('cpu_train', ('--output', '/dev/null/x.json'), FILE, monkeypatch, capsys)
