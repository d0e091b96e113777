"""Throughput and latency of `serve`: clients that ask again as soon as they are answered, with batches and without.

    python benchmarks/serve.py --output benchmarks/results/serve.json
    python benchmarks/serve.py --model resnet50 --size 224 --clients 1 64

A server of the model, with random weights, is started for each --max-batch. Each client keeps one connection and sends
one JPEG a request (256 x 256 pixels), so that decoding counts too; all clients are one process beside the server, on
the same cores. Latency is from sending a request to having its answer. What is measured begins a second after the
first request.
"""

import argparse
import asyncio
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import outputs
from input_pipeline import command, machine
from PIL import Image

from imagenet_jax import models, record
from imagenet_jax.checkpoint import save_variables

_WARM_S = 1


def main() -> None:
    """Measures each case, prints a line of it, and writes the numbers."""
    arguments = parse()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / 'model', arguments.model, arguments.size)
        print(f'{"max batch":>9} {"clients":>7} {"images/s":>9} {"p50 ms":>8} {"p99 ms":>8}')
        for max_batch in arguments.max_batch:
            server = subprocess.Popen(
                [sys.executable, '-m', 'imagenet_jax', 'serve', '--checkpoint', f'{folder}/model', '--port', '0',
                 '--max-batch', str(max_batch)], stdout=subprocess.PIPE, text=True)
            try:
                line = server.stdout.readline()
                found = re.search(r':(\d+)$', line.strip())
                if not found:
                    sys.exit(f'error: the server did not start: {line}')
                for clients in arguments.clients:
                    rows.append({'max_batch': max_batch, 'clients': clients,
                                 **asyncio.run(measure(int(found[1]), clients, arguments.seconds))})
                    print('{max_batch:>9} {clients:>7} {images_per_s:>9.1f} {p50_ms:>8.2f} {p99_ms:>8.2f}'.format(
                        **rows[-1]), flush=True)
            finally:
                server.terminate()
                server.wait()
    if arguments.output:
        result = {'command': command(), 'date': datetime.now(UTC).isoformat(timespec='seconds'), **machine(),
                  'model': arguments.model, 'image_size': arguments.size, 'cases': rows}
        arguments.output.write_text(json.dumps(result, indent=1) + '\n')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='resnet8_cifar', help='default %(default)s')
    parser.add_argument('--size', metavar='N', type=int, default=32, help='side of the crop, default %(default)s')
    parser.add_argument('--max-batch', metavar='N', type=int, nargs='+', default=[1, 32], help='default 1 and 32')
    parser.add_argument('--clients', metavar='N', type=int, nargs='+', default=[1, 8, 64], help='default 1, 8 and 64')
    parser.add_argument('--seconds', metavar='S', type=float, default=8, help='a case, default %(default)s')
    parser.add_argument('--output', metavar='FILE', type=outputs.file, help='results as JSON')
    return parser.parse_args()


def make(folder: Path, name: str, size: int) -> None:
    """An import of random weights, in the folder."""
    model = models.create(name=name)
    save_variables(folder, {'batch_stats': {}} | jax.jit(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))())
    record.write(folder, {'model': {'name': name}, 'eval': {'size': size, 'resize': size}, 'loss': {'name': 'softmax'},
                          'run': {'class_names': []}})


async def measure(port: int, clients: int, seconds: float) -> dict:
    """Images a second and latencies of so many clients."""
    image = jpeg()
    request = (f'POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n'
               f'Content-Length: {len(image)}\r\n\r\n').encode() + image
    begin = time.perf_counter() + _WARM_S
    end = begin + seconds
    found = []

    async def client():
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        while (sent := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b'\r\n\r\n')
            if b' 200 ' not in head:
                sys.exit(f'error: {head.decode()}')
            await reader.readexactly(int(re.search(rb'content-length: (\d+)', head)[1]))
            if sent >= begin:
                found.append(time.perf_counter() - sent)
        writer.close()
    await asyncio.gather(*(client() for _ in range(clients)))
    p50, p99 = np.percentile(found, [50, 99])
    return {'images_per_s': round(len(found) / (time.perf_counter() - begin), 1), 'images': len(found),
            'p50_ms': round(1e3 * p50, 2), 'p99_ms': round(1e3 * p99, 2)}


def jpeg() -> bytes:
    """Slopes and noise, as photographs have."""
    y, x = np.mgrid[:256, :256]
    noise = np.random.default_rng(0).normal(0, 6, (256, 256, 3))
    pixels = np.stack([x, y, (x + y) / 2], -1) * 0.8 + 20 * np.sin(x / 9)[..., None] + noise + 20
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, 'JPEG', quality=90)
    return file.getvalue()


if __name__ == '__main__':
    main()
