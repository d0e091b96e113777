"""Benchmarks that take minutes say at once what they would not write."""

import re
import runpy
import sys

import pytest
from runs import ROOT


@pytest.mark.parametrize(('name', 'arguments', 'message'), [
    ('hosts', ('--output', '/dev/null/x.json'), 'error: cannot write /dev/null/x.json'),
    ('scale', ('--output', '/dev/null/x.json'), 'error: cannot write /dev/null/x.json'),
    ('train_step', ('--output', '/dev/null/x.jsonl'), 'error: cannot write /dev/null/x.jsonl'),
    ('train_step', ('--trace', '/dev/null'), 'error: cannot write /dev/null')])
def test_wrong_arguments(name, arguments, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *arguments])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'benchmarks' / f'{name}.py'), run_name='__main__')
    assert re.search(message, capsys.readouterr().err)
