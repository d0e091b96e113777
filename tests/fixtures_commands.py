"""Commands called in this process, or in one of their own."""

import subprocess
import sys

import pytest
from runs import ROOT, environment

from imagenet_jax.command_line import running


def called(monkeypatch, capsys, command, *arguments):
    """(exit code or what it says on leaving, stdout) of a command."""
    monkeypatch.setattr(sys, 'argv', ['prog', *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        running.run(command)
    return caught.value.code, capsys.readouterr().out


def ran(*arguments, code=0):
    """Standard output and error of a command in its own process."""
    done = subprocess.run([sys.executable, '-m', 'imagenet_jax', *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, env=environment())
    assert done.returncode == code, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr
