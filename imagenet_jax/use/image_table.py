"""What a model said of each image of a split, a row an image, as Parquet or CSV."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from imagenet_jax.errors import as_text, replacing
from imagenet_jax.metrics.evaluation_result import Result
from imagenet_jax.sources import Source


def table(source: Source, result: Result, names: Sequence[str]) -> pa.Table:
    """One row an image, in the order of the source.

    Args:
      source: the split.
      result: of a pass over it, with its images.
      names: one a class.

    Returns:
      Columns key (the source's name of the image), label and label_name (lists where an image may have several),
      correct (whether the likeliest class is the image's, or one of them), rank (of its class among all, from 1; of
      several the best), class_1, name_1, probability_1 and so on, likeliest first, and problem: 'unreadable' or 'not
      finite', where there is no answer: it counts as wrong, and its rank, classes and probabilities are null. So are
      correct and rank where an image has no class.
    """
    rows = result.images
    order = np.argsort(rows['index'], kind='stable')
    order = order[rows['index'][order] >= 0]
    index, rank, classes, probabilities, readable = (
        rows[name][order] for name in ('index', 'rank', 'classes', 'probabilities', 'readable'))
    none, labels = classes[:, 0] < 0, [source.classes_of(int(i)).tolist() for i in index]
    problem = np.where(readable, 'not finite', 'unreadable')
    names = np.array([as_text(name) for name in names], object)
    labelled = np.array([bool(own) for own in labels])
    columns = {'key': [as_text(source.key(int(i))) for i in index]}
    if source.multi_label:
        columns |= {'label': pa.array(labels, pa.list_(pa.int32())),
                    'label_name': pa.array([names[own].tolist() for own in labels], pa.list_(pa.string()))}
    else:
        columns |= {'label': pa.array([own for own, in labels], pa.int32()),
                    'label_name': [names[own] for own, in labels]}
    columns |= {'correct': pa.array(rank == 1, mask=~labelled), 'rank': pa.array(rank, pa.int32(), mask=rank == 0)}
    for place, (number, probability) in enumerate(zip(classes.T, probabilities.T, strict=True), 1):
        columns |= {f'class_{place}': pa.array(number, pa.int32(), mask=none),
                    f'name_{place}': pa.array(names[number], pa.string(), mask=none),
                    f'probability_{place}': pa.array(probability, pa.float32(), mask=none)}
    return pa.table(columns | {'problem': pa.array(problem.astype(object), pa.string(), mask=~none)})


def write(path: Path, made: pa.Table) -> None:
    """Writes a table whole or not at all; a name that ends in .parquet is that, any other CSV, its lists JSON."""
    with replacing(path) as partial:
        if path.suffix.lower() == '.parquet':
            parquet.write_table(made, partial)
            return
        for place, field in enumerate(made.schema):
            if pa.types.is_list(field.type):
                text = [json.dumps(value, ensure_ascii=False) for value in made[field.name].to_pylist()]
                made = made.set_column(place, field.name, [text])
        csv.write_csv(made, partial)
