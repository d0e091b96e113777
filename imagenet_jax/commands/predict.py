"""Names the classes of images, and shows what the answer rests on.

    python -m imagenet_jax predict --checkpoint runs/resnet50 cat.jpg dog.png
    python -m imagenet_jax predict --checkpoint runs/resnet50 --best --top 1 --json photos > photos.jsonl
    python -m imagenet_jax predict --checkpoint runs/resnet50 --html photos.html 'photos/**/*.jpg'
    find photos -name '*.png' -print0 | python -m imagenet_jax predict --checkpoint runs/resnet50 --csv photos.csv -

An argument is an image; a folder: every image at any depth in it; a pattern that the shell left alone, ** any number of
folders; or -, a list on standard input, one path a line or between NULs. What is given twice is answered twice.

Prints the likeliest classes, or of a model for images of several classes all those that are likelier than not; beside a
WordNet id of ImageNet's the readable name. With --json one line of JSON an image, with the reason where it has no
answer. With --csv or --html the answers are in that file, which is written whole or not at all, and printed only where
--json is given too.

--explain and --html show by Grad-CAM (arXiv 1610.02391) which part of the centre crop speaks for a class, for the first
model where there are several: for each image's likeliest class, or each that is likelier than not, or those of --class.

Leaves with 1 where an image cannot be read or an argument names none; it is told, and the others are answered all the
same.
"""

import csv
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from imagenet_jax.class_names import shown
from imagenet_jax.command_line import bars, checkpoints, images, outputs, parsing
from imagenet_jax.errors import UserError, replacing, writing
from imagenet_jax.terminal import printable

if TYPE_CHECKING:
    from imagenet_jax.use.classifier import Classifier
    from imagenet_jax.use.explain import GradCAM
    from imagenet_jax.use.predictions import Prediction

_COLUMNS = 'image', 'rank', 'index', 'class', 'name', 'probability', 'error'


def main() -> int | None:
    """The whole command."""
    parser = parsing.parser('predict', __doc__)
    checkpoints.add_arguments(parser)
    parser.add_argument('--seam-carving', action='store_true',
                        help='make the image square by seam carving, before the crop: no edges are lost')
    parser.add_argument('--top', metavar='N', type=parsing.positive,
                        help='classes an image, of a model of one class an image; 5 where not given')
    parser.add_argument('--json', action='store_true', help='print one line of JSON an image')
    parser.add_argument('--csv', metavar='FILE', type=parsing.path,
                        help='a row for each class of each image, and for an image without any')
    parser.add_argument('--html', metavar='FILE', type=parsing.path,
                        help='a page that needs nothing else: pictures, classes, Grad-CAM')
    parser.add_argument('--explain', metavar='DIR', type=parsing.path,
                        help='a PNG of each image with Grad-CAM over it, as NAME.CLASS.png')
    parser.add_argument('--stage', metavar='S', help="whose map Grad-CAM is of: the model's last where not given")
    parser.add_argument('--class', dest='classes', metavar='C', action='append', default=[],
                        help='that Grad-CAM explains, a name or a number; may be given again')
    parser.add_argument('images', metavar='IMAGE', nargs='+', type=parsing.path,
                        help='a file, a folder of them, a pattern, or - for a list on standard input')
    return _predict(parser.parse_args())


def _predict(arguments) -> int:
    _refuse(arguments)
    classifier = _classifier(arguments)  # imports JAX, for which help does not wait
    from tqdm import tqdm

    from imagenet_jax.use.explain import GradCAM, class_number
    from imagenet_jax.use.predictions import predictions
    if arguments.top and classifier.task.multi_label:
        raise UserError('--top is for models of one class an image; this one names all that are likelier than not')
    asked = [class_number(classifier, name) for name in arguments.classes]
    files, wrong = images.named(arguments.images)
    for line in wrong:
        print(printable(line), file=sys.stderr)
    explained = arguments.explain or arguments.html
    explain = GradCAM(classifier, arguments.stage, most=len(files)) if explained else None
    show = _json if arguments.json else _lines
    printed = arguments.json or not (arguments.csv or arguments.html)
    bad = 0
    with ExitStack() as files_open:
        said = predictions(classifier, files, arguments.top or 5, explain, asked)
        said = _written(said, arguments, classifier, explain, files, files_open)
        hidden = not sys.stderr.isatty() or (printed and sys.stdout.isatty())  # answers that scroll by are enough
        for answer in tqdm(said, total=len(files), unit='image', disable=hidden):
            if answer.reason:
                tqdm.write(printable(f'{answer.image}: {answer.reason}'), file=sys.stderr)
                bad += 1
            if printed and (arguments.json or not answer.reason):
                print(show(answer))
    if bad:
        print(f'{bad:,} of {len(files):,} images have no answer', file=sys.stderr)
    return int(bool(bad or wrong))


def _refuse(arguments) -> None:
    """Raises UserError for what could only fail after the work is done."""
    if (arguments.stage or arguments.classes) and not (arguments.explain or arguments.html):
        raise UserError('--stage and --class say what Grad-CAM explains: give --explain DIR or --html FILE with them')
    outputs.check([('--csv', arguments.csv, ()), ('--html', arguments.html, ())])
    if arguments.explain and arguments.explain.exists() and not arguments.explain.is_dir():
        raise UserError(f'--explain {arguments.explain} is a file: name the folder to write overlays to')


def _classifier(arguments) -> 'Classifier':
    classifier = checkpoints.load(arguments)
    classifier.check_head()
    if not arguments.seam_carving:
        return classifier
    from imagenet_jax.images.seam import SeamCarved
    from imagenet_jax.use.classifier import Classifier
    return Classifier(*(dataclasses.replace(each, view=SeamCarved(**dataclasses.asdict(each.view)))
                        for each in classifier.members))


def _written(said: 'Iterator[Prediction]', arguments, classifier: 'Classifier', explain: 'GradCAM | None',
             files: list[Path], files_open: ExitStack) -> 'Iterator[Prediction]':
    """The answers, which are written on their way to where the arguments say; `files_open` closes the files."""
    from imagenet_jax.use import gallery
    from imagenet_jax.use.predictions import class_name
    name = partial(class_name, classifier)
    if arguments.explain:
        with writing(arguments.explain / 'any'):
            said = _drawn(said, arguments.explain, name, {file.resolve() for file in files})
    if arguments.csv:
        said = _rows(said, _opened(arguments.csv, files_open, newline=''))
    if arguments.html:
        model = ', '.join(map(str, arguments.checkpoint))
        said = gallery.write(said, len(files), f'{model}; Grad-CAM of {explain.stage}',
                             lambda number: shown(name(number), classifier.class_words),
                             _opened(arguments.html, files_open))
    return said


def _opened(file: Path, files_open: ExitStack, **options) -> TextIO:
    partial = files_open.enter_context(replacing(file))
    # Names of files need not be text.
    return files_open.enter_context(partial.open('w', encoding='utf-8', errors='backslashreplace', **options))


def _drawn(said: 'Iterator[Prediction]', folder: Path, name, images: set[Path]) -> 'Iterator[Prediction]':
    """Writes the overlays, over none of the images, and adds their files to the answers."""
    from PIL import Image

    from imagenet_jax.use.explain import overlay
    used = set()
    for answer in said:
        files = []
        for number, heat in answer.explained:
            # Short enough for any file system, and free of what means something in a path.
            plain = re.sub(r'[^\w.-]+', '_', f'{answer.image.stem[:40]}.{name(number)[:20]}')
            file, copies = folder / f'{plain}.png', 1
            while file in used or file.resolve() in images:
                copies += 1
                file = folder / f'{plain}-{copies}.png'
            used.add(file)
            with replacing(file) as partial:
                Image.fromarray(overlay(answer.picture, heat)).save(partial, 'PNG')
            files.append(file)
        yield answer._replace(overlays=files)


def _rows(said: 'Iterator[Prediction]', out: TextIO) -> 'Iterator[Prediction]':
    table = csv.DictWriter(out, _COLUMNS)
    table.writeheader()
    for answer in said:
        table.writerows({'image': answer.image, 'rank': rank, **one} for rank, one in enumerate(answer.classes, 1))
        if not answer.classes:
            table.writerow({'image': answer.image, 'error': answer.reason})
        yield answer


def _json(answer: 'Prediction') -> str:
    drawn = [{'index': number, 'file': str(file)}
             for (number, _), file in zip(answer.explained, answer.overlays, strict=False)]
    said = {'error': answer.reason} if answer.reason else {'classes': answer.classes}
    return json.dumps({'image': str(answer.image)} | said | ({'overlays': drawn} if drawn else {}))


def _lines(answer: 'Prediction') -> str:
    return '\n'.join(bars.lines(str(answer.image), answer.classes))
