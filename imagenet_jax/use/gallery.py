"""Answers as one HTML page that needs nothing else: each picture, its likeliest classes, what they rest on."""

import base64
import html
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from imagenet_jax.class_names import titled
from imagenet_jax.errors import as_text
from imagenet_jax.use.explain import enlarged, overlay
from imagenet_jax.use.predictions import Prediction

# Sides of the pictures in pixels, and above how many images they are the smaller ones: 4 kB each, so that a browser
# still takes ten thousand.
_LARGE, _SMALL, _MANY = 224, 112, 500

_STYLE = '''body { font: 14px sans-serif; margin: 2em; background: #fff; color: #222 }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 16px }
article { border: 1px solid #ddd; border-radius: 4px; padding: 10px; content-visibility: auto;
  contain-intrinsic-size: auto 420px } h2 { font-size: 14px; margin: 0 0 8px; overflow-wrap: anywhere }
figure { display: inline-block; margin: 0 8px 8px 0; vertical-align: top } figcaption { font-size: 11px; color: #666;
  max-width: 224px; overflow-wrap: anywhere } img { display: block } li { overflow-wrap: anywhere }
.class { display: grid; grid-template-columns: 4em 8em 1fr; gap: 8px; line-height: 1.6 }
.bar { background: #eee; height: 12px; margin-top: 5px } .bar div { background: #4878a8; height: 12px }'''
# Nothing is fetched from anywhere, whatever a name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(answers: Iterator[Prediction], count: int, said: str, name: Callable[[int], str],
          out: io.TextIOBase) -> Iterator[Prediction]:
    """Writes the page while the answers, of pictures and maps, pass through; whole once the last one has.

    Args:
      answers: to show, `count` of them.
      count: decides how large pictures are.
      said: stands above them.
      name: of a class, by its number.
      out: takes the page, text.
    """
    side = _LARGE if count <= _MANY else _SMALL
    out.write(f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
              f'content="{_POLICY}"><title>Predictions</title><style>{_STYLE}</style>\n<p>{_text(said)}</p>\n<main>\n')
    bad = []
    for answer in answers:
        if answer.reason:
            bad.append(answer)
        else:
            out.write(_card(answer, side, name))
        yield answer
    lines = ''.join(f'<li>{_text(answer.image)}: {_text(answer.reason)}</li>\n' for answer in bad)
    out.write(f'</main>\n<p>{count - len(bad):,} of {count:,} images have an answer.</p>\n'
              + (f'<ul>\n{lines}</ul>\n' if bad else '') + '</html>\n')


def _card(answer: Prediction, side: int, name: Callable[[int], str]) -> str:
    pictures = [_figure(enlarged(answer.picture), 'what the model sees', side)]
    pictures += [_figure(overlay(answer.picture, heat), f'Grad-CAM: {name(number)}', side)
                 for number, heat in answer.explained]
    rows = ''.join(f'<div class="class"><span>{one["probability"]:.4f}</span><div class="bar">'
                   f'<div style="width: {100 * one["probability"]:.1f}%"></div></div>'
                   f'<span>{_text(titled(one))}</span></div>\n' for one in answer.classes)
    return (f'<article><h2>{_text(answer.image)}</h2>\n{"".join(pictures)}\n'
            f'{rows or "<p>no class to name</p>"}</article>\n')


def _figure(pixels: np.ndarray, caption: str, side: int) -> str:
    image, encoded = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((side, side))
    image.save(encoded, 'JPEG', quality=85)
    data = base64.b64encode(encoded.getvalue()).decode()
    return (f'<figure><img loading="lazy" width="{image.width}" height="{image.height}" alt="{_text(caption)}" '
            f'src="data:image/jpeg;base64,{data}"><figcaption>{_text(caption)}</figcaption></figure>')


def _text(value) -> str:
    return html.escape(as_text(str(value)))
