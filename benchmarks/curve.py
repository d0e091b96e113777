"""Keeps a finished run as one JSON file: what it was, on what, and its curve.

    python benchmarks/curve.py runs/digits --command 'make demo' --data 'scikit-learn digits' \
        --output benchmarks/results/digits.json
"""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import outputs

from imagenet_jax import record
from imagenet_jax.metrics.run_log import read_rows

CURVE = ('train/epoch', 'train/loss', 'train/accuracy', 'train/images_per_s', 'eval/top1', 'eval/top5', 'eval/loss')


def main() -> None:
    """Reads config.json and metrics.jsonl of the run and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('workdir', type=Path)
    parser.add_argument('--command', required=True, help='that made the run; folders of this machine as DIR')
    parser.add_argument('--data', required=True, help='what it was trained on, in words')
    parser.add_argument('--note', default='', help='what a reader of the numbers must know')
    parser.add_argument('--output', type=outputs.file, required=True)
    arguments = parser.parse_args()
    run, rows = record.read(arguments.workdir)['run'], read_rows(arguments.workdir / 'metrics.jsonl')
    last = [row for row in rows if 'eval/top1' in row][-1]
    written = datetime.fromtimestamp((arguments.workdir / 'metrics.jsonl').stat().st_mtime, UTC)
    result = {
        'command': arguments.command, 'data': arguments.data, 'note': arguments.note, 'date': f'{written:%Y-%m-%d}',
        'machine': f'{os.cpu_count()} cores, {platform.machine()}', 'device_kind': run['device_kind'],
        'devices': run['devices'], 'git_revision': run['git_revision'], 'versions': run['versions'],
        'train_examples': run['train_examples'], 'eval_examples': run['eval_examples'],
        'result': {name: last[name] for name in ('step', 'train/epoch', 'eval/top1', 'eval/top5', 'eval/loss')},
        'curve': [{name: row[name] for name in ('step', *CURVE) if name in row} for row in rows]}
    arguments.output.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
