"""Answers images over HTTP, with a page to try trained models on.

    python -m imagenet_jax serve --checkpoint runs/resnet50
    python -m imagenet_jax serve --checkpoint runs/resnet18 runs/resnet50 --port 0
    python -m imagenet_jax serve --folder runs --best
    curl -F image=@cat.jpg -F image=@dog.png 'http://127.0.0.1:8000/predict?top=3'
    curl -H Content-Type:image/jpeg --data-binary @cat.jpg 'http://127.0.0.1:8000/predict?model=resnet50&explain=1'

Several models stand side by side, each under its folder's name; a request is for the first, or for ?model=NAME.
POST /predict answers one image or many as `predict --json` does, with ?explain=1 the Grad-CAM overlay too (PNG in
base64); GET /models, /healthz and /metrics (Prometheus) tell of the server. Images that wait together are answered in
one batch. Nobody is asked for a password: others than this machine are let in by --host alone.

A request that is too large is answered by 413, one that comes too slowly by 408, an image that is none by 415, or 422
where it is damaged or too large, with the reason for each, one too many by 503, and what takes too long by 504.
Ctrl-C and SIGTERM end it within 2 s.
"""

import logging
import os
from pathlib import Path

from tqdm import tqdm

from imagenet_jax.command_line import checkpoints, parsing, running
from imagenet_jax.errors import UserError, beside
from imagenet_jax.images.limits import MAX_PIXELS

log = logging.getLogger(__name__)


def main() -> None:
    """The whole command."""
    parser = parsing.parser('serve', __doc__)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument('--checkpoint', metavar='DIR', type=parsing.path, action='extend', nargs='+', default=[],
                        help='the folder of a run or an import; several stand side by side')
    models.add_argument('--folder', metavar='DIR', type=parsing.path,
                        help='every run and import in it, at any depth')
    checkpoints.add_use(parser)
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; default: %(default)s')
    parser.add_argument('--port', metavar='N', type=parsing.whole(0, 65_535), default=8000,
                        help='default: %(default)s; 0: a free one')
    _add_limits(parser)
    _serve(parser.parse_args())


def _add_limits(parser) -> None:
    for name, most, default, what in (
            ('max-batch', 4096, 32, 'images that are answered together, at most'),
            ('max-wait-ms', 10_000, 2, 'how long an image waits for others to come'),
            ('queue', 10**6, 256, 'images that wait for their answer; for one more the answer is 503'),
            ('max-bytes', 2**31 - 1, 2**25, 'of the body of a request'),
            ('max-pixels', MAX_PIXELS, MAX_PIXELS, 'of an image'),
            ('timeout', 3600, 30, 'seconds that a request may take to come, and then again its answer'),
            ('top', 10**6, 5, 'classes an image, where a request does not say')):
        parser.add_argument(f'--{name}', metavar='N', type=parsing.whole(int(name != 'max-wait-ms'), most),
                            default=default, help=f'{what}; default: %(default)s')


def _serve(arguments) -> None:
    try:
        with running.importing():
            from imagenet_jax.use.serve import app, server, service
    except ImportError as error:
        raise UserError("serving needs FastAPI, uvicorn, python-multipart and prometheus_client: pip install "
                        f"'imagenet_jax[serve]' ({error})") from error
    bound = server.listen(arguments.host, arguments.port)
    if server.is_open(bound):
        log.warning('warning: %s can be reached from other machines, and asks nobody for a password', arguments.host)
    limits = service.Limits(**{field: getattr(arguments, field) for field in service.Limits.__dataclass_fields__})
    served = service.Service(_models(arguments), limits)
    try:
        programs = served.programs
        for program in tqdm(programs, 'compiling', unit='program', disable=None):
            program()
        bound.listen()  # who reads the line may come at once
        print(f'serving {", ".join(served.models)} at {server.address(bound)}', flush=True)
        server.Server(app.create(served), limits.timeout).run([bound])
    finally:
        served.close()


def _models(arguments) -> dict:
    """Classifiers by name. Raises UserError, but of a folder's parts only where none can be used: they are named."""
    from imagenet_jax import runtime  # import JAX, for which --help does not wait
    from imagenet_jax.report import folders
    from imagenet_jax.use import classifier
    runtime.configure_jax(deterministic=False, compilation_cache=True)
    options = checkpoints.use(arguments)
    if not arguments.folder:
        return {name: classifier.load(folder, **options) for name, folder in _named(arguments.checkpoint).items()}
    if not arguments.folder.is_dir():
        raise UserError(f'no folder {arguments.folder}; {beside(arguments.folder)}')
    models, left_out = {}, []
    for name, folder in _named(folders.find(arguments.folder)).items():
        try:
            model = classifier.load(folder, **options)
            model.check_head()
            models[name] = model
        except UserError as error:
            left_out.append(f'{folder} is left out: {error}')
    if not models:
        raise UserError('\n'.join([f'no model to serve in {arguments.folder}', *left_out]))
    for line in left_out:
        log.warning(line)
    return models


def _named(paths: list[Path]) -> dict[str, Path]:
    """Each by what tells it from the others: its own name, with the folders above where they differ."""
    whole = {Path(os.path.abspath(path)): path for path in paths}  # hf:OWNER/NAME stays as it is given
    if len(whole) < len(paths):
        raise UserError(f'{next(path for path in paths if path not in whole.values())} is given twice')
    above = os.path.commonpath([path.parent for path in whole]) if whole else ''
    return {path.relative_to(above).as_posix(): given for path, given in whole.items()}
