"""Results in a CSV file that grows, and as a table for a terminal."""

import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.use.rows import ResultsFile, aligned

COLUMNS, TEXTS = ('name', 'top1', 'note'), ('name', 'note')
ROWS = [{'name': 'b, "ö"\n', 'top1': 1.5, 'note': ''}, {'name': '7', 'top1': 2, 'note': 'a\udcff'},
        {'name': 'c', 'top1': None, 'note': '-'}]


def opened(path):
    return ResultsFile(path, COLUMNS, TEXTS)


@pytest.fixture
def path(tmp_path):
    file = opened(tmp_path / 'new' / 'r.csv')
    for row in ROWS:
        file.add(row)
    return tmp_path / 'new' / 'r.csv'


def test_a_kill_loses_no_row_that_was_added(path):
    whole = path.read_bytes()
    assert opened(path).rows == ROWS
    path.write_bytes(whole + b'd,3')  # as a kill leaves it
    file = opened(path)
    assert file.rows == ROWS and path.read_bytes() == whole
    file.add(ROWS[0])
    assert opened(path).rows == [*ROWS, ROWS[0]]


def test_sorted_at_the_end(path):
    file = opened(path)
    file.rewrite(lambda row: row['name'])
    assert opened(path).rows == [ROWS[1], ROWS[0], ROWS[2]] and list(path.parent.iterdir()) == [path]


def test_without_a_file():
    file = ResultsFile(None, COLUMNS, TEXTS)
    file.add(ROWS[0])
    file.rewrite()
    assert file.rows == ROWS[:1]


@pytest.mark.parametrize(('text', 'message'), [
    ('a,b\n1,2\n', "other columns .*'a, b'"), ('x', 'other columns'), ('name,top1,note\na\n', 'a row of 1 cells'),
    ('\0\n', 'other columns|no CSV')])
def test_a_foreign_file_stays_as_it_is(text, message, tmp_path):
    (tmp_path / 'r.csv').write_text(text)
    with pytest.raises(UserError, match=message):
        opened(tmp_path / 'r.csv')
    assert (tmp_path / 'r.csv').read_text() == text
    with pytest.raises(UserError, match='is no file'):
        opened(tmp_path)


def test_a_table_fits_a_terminal():
    long = 'x' * 70
    shown = aligned(('name', 'model', 'empty', 'top-1'),
                    [('日本', 'resnet', '', '76.10'), (long, 'vgg', '', '9.00'), ('a\x1b', 'alexnet', '', '')], 2)
    assert shown.splitlines() == ['name  model   top-1', '日本  resnet  76.10', long, '      vgg      9.00',
                                  'a\\x1b alexnet']
