"""The command serve: what it names and leaves out, and how it ends."""

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from fixtures_commands import called
from fixtures_images import jpeg
from fixtures_trained import imported
from PIL import Image
from runs import ROOT, environment

pytest.importorskip('fastapi')
from fixtures_serve import Plain

from imagenet_jax.commands import serve
from imagenet_jax.errors import UserError
from imagenet_jax.use import classifier
from imagenet_jax.use.serve import server


def test_models_are_named_by_what_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, names in (('runs/x', 'x'), ('runs/x runs/y', 'x y'), ('a/x b/x', 'a/x b/x'), ('x x/y', 'x x/y'),
                         ('a/../x', 'x')):
        paths = [tmp_path / path for path in given.split()]
        assert list(serve._named(paths)) == names.split()
    with pytest.raises(UserError, match='given twice'):
        serve._named([tmp_path / 'x', tmp_path / 'y' / '..' / 'x'])


def test_a_folder_is_served_without_what_cannot_be_used(tmp_path, monkeypatch, capsys, explained):
    for name in ('good', 'deep/good', 'bad', 'headless'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text('{}')

    def load(folder, **options):
        assert options['best']
        if folder.name == 'bad':
            raise UserError('it is damaged')
        model = Plain()
        model.num_classes = 0 if folder.name == 'headless' else 2
        return model
    monkeypatch.setattr(classifier, 'load', load)
    monkeypatch.setattr(server.Server, 'run', lambda self, sockets: None)
    code, out = called(monkeypatch, capsys, 'serve', '--folder', tmp_path, '--best', '--port', 0, '--host', '0.0.0.0')
    assert not code and re.fullmatch(r'serving deep/good, good at http://0\.0\.0\.0:\d+\n', out)


def test_what_is_left_out_or_open_is_told(tmp_path, monkeypatch, caplog):
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'config.json').write_text('{}')
    monkeypatch.setattr(sys, 'argv', ['prog', '--folder', str(tmp_path), '--host', '0.0.0.0', '--port', '0'])
    with pytest.raises(UserError, match=r'no model to serve in .*\n.*bad is left out: '):
        serve.main()
    assert '0.0.0.0 can be reached from other machines' in caplog.text


def test_what_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        code, _ = called(monkeypatch, capsys, 'serve', '--checkpoint', tmp_path, '--port', port)
    assert re.match(rf'error: cannot listen on 127\.0\.0\.1, port {port}: Address already in use; ', code)
    for arguments, said in ((['--checkpoint', tmp_path / 'none'], 'none'),
                            (['--folder', tmp_path / 'none'], 'no folder'),
                            (['--folder', tmp_path], 'no model to serve'),
                            (['--checkpoint', tmp_path, '--host', 'no such.host'], "no address 'no such.host'")):
        code, _ = called(monkeypatch, capsys, 'serve', '--port', 0, *arguments)
        assert code.startswith('error: ') and said in code
    for arguments in ((), ('--folder', 'x', '--checkpoint', 'y'), ('--folder', 'x', '--queue', 0)):
        assert called(monkeypatch, capsys, 'serve', *arguments)[0] == 2
    monkeypatch.setitem(sys.modules, 'imagenet_jax.use.serve.app', None)
    monkeypatch.delattr('imagenet_jax.use.serve.app', raising=False)
    assert "pip install 'imagenet_jax[serve]'" in called(monkeypatch, capsys, 'serve', '--checkpoint', tmp_path)[0]


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_2_s(number, tmp_path):
    imported(tmp_path / 'x')
    command = [sys.executable, '-m', 'imagenet_jax', 'serve', '--checkpoint', str(tmp_path / 'x'), '--port', '0',
               '--max-batch', '2']
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment())
    try:
        line = process.stdout.readline()
        found = re.match(r'serving x at http://127\.0\.0\.1:(\d+)', line)
        assert found, line + process.stderr.read()
        port = int(found[1])
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        connection.request('POST', '/predict?explain=1', jpeg(), {'Content-Type': 'image/jpeg'})
        answer = json.loads(connection.getresponse().read())
        assert len(answer['images'][0]['classes']) == 5
        Image.open(io.BytesIO(base64.b64decode(answer['images'][0]['explanation']))).load()
        with socket.create_connection(('127.0.0.1', port)) as half:
            half.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n')
            time.sleep(0.2)
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(60) == 128 + number
            assert time.monotonic() - began < 2
            assert b' 503 ' in half.recv(4096)
        assert 'Traceback' not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
