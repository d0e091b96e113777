"""The notebooks run from top to bottom, without a network; what they draw is what docs/ shows."""

import json
import os
import sys
from pathlib import Path

import pytest
from runs import ROOT, environment

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
PICTURES = ROOT / 'docs' / 'notebooks'


@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda file: file.stem)
def test_no_outputs_are_kept(file):
    code = [cell for cell in json.loads(file.read_text())['cells'] if cell['cell_type'] == 'code']
    assert code and not any(cell['outputs'] or cell['execution_count'] for cell in code)


def test_pictures_are_small():
    assert {file.name for file in PICTURES.iterdir()} and all(
        file.stat().st_size < 100_000 for file in PICTURES.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs(file, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip('nbclient'), pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    notebook = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3',
                            resources={'metadata': {'path': str(tmp_path)}}).execute()
    # A command that fails stops no notebook.
    said = ''.join(output.get('text', '') for cell in notebook.cells for output in cell.get('outputs', ()))
    assert 'error: ' not in said and 'Traceback' not in said
    drawn = {picture.name for picture in tmp_path.glob('*.png')}
    assert drawn and drawn <= {picture.name for picture in PICTURES.iterdir()}
