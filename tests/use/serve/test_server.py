"""The server as its clients see it: right answers, and an answer whatever they send, or do not send."""

import base64
import contextlib
import io
import json
import socket
import threading

import numpy as np
import pytest
from fixtures_images import encode, jpeg, png_claiming
from fixtures_trained import imported
from PIL import Image
from runs import ROOT

import imagenet_jax

pytest.importorskip('fastapi')
from fixtures_serve import Plain, form, serving

RED, GREEN = (encode(Image.new('RGB', (8, 8), colour), 'PNG') for colour in ((255, 0, 0), (51, 255, 0)))
CUT = jpeg(height=60, width=60)[:-300]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return imported(tmp_path_factory.mktemp('runs') / 'zwölf', class_names=tuple('éklmnopqrs'))


@pytest.fixture(scope='module')
def model(folder):
    return imagenet_jax.load(folder)


@pytest.fixture(scope='module')
def client(model, explained):
    models = {'zwölf': model, 'plain': Plain()}
    with serving(models, max_batch=8, max_bytes=100_000, max_pixels=10_000, queue=120, top=3) as client:
        for program in client.service.programs:
            program()
        yield client


@pytest.fixture
def plain(explained):
    """(the model, what asks its server): one whose answers a test can hold back, and which is patient for 1 s."""
    model = Plain()
    with serving({'plain': model}, queue=3, timeout=1) as client:
        yield model, client
        model.free.set()


def test_answers_are_those_of_the_library(client, model):
    images = [jpeg(seed, 40, 50) for seed in range(5)]
    status, _, answer = client.send(*((f'{i}.jpg', image) for i, image in enumerate(images)), query='?top=10')
    assert status == 200 and answer['model'] == 'zwölf'
    assert [each['image'] for each in answer['images']] == [f'{i}.jpg' for i in range(5)]
    for each, row in zip(answer['images'], model.predict(images, 8), strict=True):
        given = np.zeros(10)
        for one in each['classes']:
            given[one['index']] = one['probability']
            assert one['class'] == model.class_names[one['index']]
        np.testing.assert_allclose(given, row, atol=1e-6)
        assert [one['probability'] for one in each['classes']] == sorted(given, reverse=True)


def test_models_stand_side_by_side(client):
    for model, name in (('plain', 'red'), ('zw%C3%B6lf', 'éklmnopqrs')):
        status, _, answer = client.send(('red', RED), query=f'?top=1&model={model}')
        assert status == 200 and answer['images'][0]['classes'][0]['class'] in (name, *name)


def test_one_image_may_be_the_body(client, model):
    image = jpeg(3, 40, 50)
    status, _, answer = client.ask('/predict', image, Content_Type='image/jpeg')
    assert status == 200 and len(answer['images']) == 1
    row = model.predict([image])[0]
    assert [one['index'] for one in answer['images'][0]['classes']] == np.argsort(-row)[:3].tolist()  # the first model
    assert client.ask('/predict', iter([image[:99], image[99:]]), Content_Type='image/jpeg')[2] == answer  # chunked
    assert client.ask('/predict', image, Content_Type='application/octet-stream')[2] == answer


def test_an_explanation_is_a_picture(client):
    status, _, answer = client.ask('/predict?explain=1', jpeg(3, 40, 50), Content_Type='image/jpeg')
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer['images'][0]['explanation']))))
    assert status == 200 and drawn.tolist() == [[[0] * 3, [85] * 3], [[170] * 3, [255] * 3]]


def test_a_bad_image_is_named_and_the_others_are_answered(client):
    status, _, answer = client.send(('good.jpg', jpeg()), ('text.jpg', b'no image'), ('ü.png', b''), ('cut.jpg', CUT),
                                    ('bomb.png', png_claiming(50_000, 50_000)), ('large.jpg', jpeg(0, 101, 100)))
    assert status == 200
    assert [each.get('status', 200) for each in answer['images']] == [200, 415, 415, 422, 422, 422]
    assert [each['image'] for each in answer['images']][2] == 'ü.png'
    assert all(each['error'].startswith('cannot be read: ') for each in answer['images'][1:])
    assert 'limit of 10000' in answer['images'][5]['error']
    assert client.send(('a', b'x'), ('b', b'y'))[0] == 415
    assert client.send(('a', b'x'), ('b', CUT))[0] == 422


@pytest.mark.parametrize('status, said, path, body, kind', [
    (400, 'cut short', '', form(('a', jpeg()))[:-8], 'multipart/form-data; boundary=edge'),
    (400, 'boundary', '', b'x', 'multipart/form-data'),
    (400, 'cannot be read', '', b'--edge\r\nx\r\n--edge--', 'multipart/form-data; boundary=edge'),
    (404, "no model 'x'; there are zwölf, plain", '?model=x', b'x', 'image/png'),
    (413, 'more than 100000 bytes', '', bytes(100_001), 'image/png'),
    (413, 'more than 100000 bytes', '', iter([bytes(60_000)] * 2), 'image/png'),
    (415, 'Content-Type is text/plain', '', b'x', 'text/plain'),
    (422, 'no file', '', b'--edge--\r\n', 'multipart/form-data; boundary=edge'),
    (422, "'top' of the form is no file", '', b'--edge\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n'
     b'--edge--\r\n', 'multipart/form-data; boundary=edge'),
    (422, 'top: ', '?top=0', b'x', 'image/png'),
    (422, 'explain: ', '?explain=maybe', b'x', 'image/png'),
])
def test_what_is_refused(client, status, said, path, body, kind):
    found, _, answer = client.ask(f'/predict{path}', body, Content_Type=kind)
    assert found == status and said in answer['error'] and '\n' not in answer['error']


@pytest.mark.parametrize('path', [
    '/../../../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/etc/passwd', '//etc/passwd', '/page.html', '/static/x',
    '/..%5c..%5cetc', '/models/one/config.json', '/docs', '/predict/../../etc/passwd', '/file:///etc/passwd'])
def test_no_file_can_be_read(client, path):
    status, _, answer = client.ask(path)
    assert (status, answer) == (404, {'error': 'Not Found'})


def test_what_the_server_tells_of_itself(client, folder):
    status, headers, page = client.ask('/')
    assert status == 200 and "default-src 'none'" in headers['Content-Security-Policy']
    assert '://' not in page  # nothing from elsewhere
    _, _, models = client.ask('/models')
    assert [each['name'] for each in models['models']] == ['zwölf', 'plain']
    client.send(('a.jpg', jpeg()), ('b.jpg', b''))
    _, headers, metrics = client.ask('/metrics')
    assert headers['Content-Type'].startswith('text/plain')
    for line in ('imagenet_jax_requests_total{path="/",status="200"}', 'imagenet_jax_waiting_images 0.0',
                 'imagenet_jax_images_total{model="zwölf",status="415"}', 'imagenet_jax_batch_images_bucket{le="8.0"}',
                 'imagenet_jax_request_seconds_count{path="/predict"}'):
        assert line in metrics
    assert client.ask('/predict')[0] == 405
    for text in (page, json.dumps(models), metrics):
        assert str(folder.parent) not in text and str(ROOT) not in text


def raw(client, data=b''):
    """A connection on which these bytes were sent."""
    connection = socket.create_connection(('127.0.0.1', client.port), timeout=60)
    connection.sendall(data)
    return connection


def test_broken_uploads_and_garbage_leave_it_answering(client):
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n'
    rng = np.random.default_rng(0)
    for number in range(100):
        with contextlib.suppress(ConnectionError):
            raw(client, head + jpeg()[:number]).close()  # goes away amid its body
            raw(client, rng.bytes(number)).close()
        body = form((f'{number}.jpg', jpeg()[:number]), ('whole.jpg', jpeg()))
        if not number % 10:
            assert client.ask('/predict', body, Content_Type='multipart/form-data; boundary=edge')[0] == 200
    for garbage in (b'\x16\x03\x01 hello\r\n\r\n', b'GET\r\n\r\n',
                    b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n', b'GET / HTTP/1.1\r\n' * 9000):
        with raw(client) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(garbage)
            assert b' 400 ' in connection.recv(4096), garbage[:40]
    assert client.well


def test_who_is_too_slow_is_let_go(plain):
    model, client = plain
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n'
    bodies = [raw(client, head + RED[:20]) for _ in range(50)]
    headers = [raw(client), raw(client, b'GET /healthz HTTP/1.1\r\nHo')]
    assert client.ask('/predict', RED, Content_Type='image/png')[0] == 200  # none of them holds anything
    assert b' 408 ' in bodies[-1].recv(4096)
    for connection in headers:
        with contextlib.suppress(ConnectionError):
            assert connection.recv(4096) == b''  # closed
    for connection in bodies + headers:
        connection.close()
    assert client.well and model.sizes == [1]


def test_one_too_many_is_told_to_come_again_and_what_takes_too_long_that_it_does(plain):
    model, client = plain
    model.free.clear()
    found = []
    threads = [threading.Thread(target=lambda: found.append(client.send(('a', RED)))) for _ in range(3)]
    threads[0].start()
    model.begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while client.service.waiting < 3:
        pass
    status, headers, answer = client.send(('a', RED))
    assert (status, headers['Retry-After']) == (503, '1') and 'wait already' in answer['error']
    assert client.send(*[('a', RED)] * 4)[0] == 503
    for thread in threads:
        thread.join()
    assert [each[0] for each in found] == [504] * 3
    assert client.well
    model.free.set()
    while client.service.waiting:  # what began is done; what had not begun is not computed
        pass
    status, _, answer = client.send(('a', RED), ('b', GREEN), ('c', GREEN))
    assert status == 200 and [each['classes'][0]['class'] for each in answer['images']] == ['red', 'other', 'other']
    assert client.send(*[('a', RED)] * 4)[0] in (400, 413)  # more than may ever wait


def test_a_model_that_fails_is_told_of_and_the_next_is_answered(plain):
    model, client = plain
    model.fault = lambda images: 1 / 0
    status, _, answer = client.send(('a', RED))
    assert status == 500 and answer['images'][0]['error'] == 'the server failed on it'
    model.fault = lambda images: np.full((len(images), 2), np.nan)
    assert 'not finite' in client.send(('a', RED))[2]['images'][0]['error']
    model.fault = None
    assert client.send(('a', RED))[0] == 200


def test_who_waits_when_it_ends_is_answered(explained):
    model, found = Plain(), []
    with serving({'plain': model}) as client:
        model.free.clear()
        thread = threading.Thread(target=lambda: found.append(client.send(('a', RED))))
        thread.start()
        model.begun.wait(60)
    model.free.set()
    thread.join()
    assert found[0][0] == 503 and 'ending' in found[0][2]['error']
