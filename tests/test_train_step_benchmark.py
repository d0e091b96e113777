"""benchmarks/train_step.py refuses what it could not write, before it measures."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / 'benchmarks' / 'train_step.py'


@pytest.mark.parametrize('option', ['--output', '--trace'])
def test_what_cannot_be_written_is_refused_first(option, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('train_step', PATH)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    (tmp_path / 'file').write_text('')
    path = tmp_path / 'file' / 'x.jsonl' if option == '--output' else tmp_path / 'file'
    monkeypatch.setattr('sys.argv', ['train_step.py', option, str(path)])
    with pytest.raises(SystemExit, match='2'):
        program.parse()
    assert f'error: cannot write {path}' in capsys.readouterr().err
