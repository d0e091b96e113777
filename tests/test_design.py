"""docs/design.md is true: every room is in its list, and imports go down it."""

import ast
import re

import pytest
from runs import ROOT

PACKAGE = ROOT / 'imagenet_jax'


def listed():
    """Room -> its line in the list."""
    text = (ROOT / 'docs' / 'design.md').read_text()
    block = re.search(r'Imports go down this list and never up:\n\n((?:    .*\n)+)', text)[1]
    # Names stand in the first column, what they hold in the second.
    return {name.rstrip('/').removesuffix('.py'): number for number, line in enumerate(block.splitlines())
            for name in line[:37].split()}


def imported(file):
    """Rooms of the package that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[1] for alias in node.names if alias.name.startswith('imagenet_jax.'))
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'imagenet_jax':
            parts = node.module.split('.')[1:2]
            yield from parts or [alias.name for alias in node.names]


def room(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = sorted(PACKAGE.rglob('*.py'))


def test_every_room_is_listed():
    assert {room(file) for file in FILES} - {'__init__'} == listed().keys() - {'main'}


# The package itself, __init__.py, is a door to any room.
@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file):
    lines = listed()
    for name in imported(file):
        assert name == '__version__' or name == room(file) or lines[name] >= lines.get(room(file), 0), name
