"""summary.json and what a run says at its end."""

import json
import math

from imagenet_jax.metrics.results import Results

ABOUT = {'model': 'resnet50', 'parameters': 25557032, 'steps': 80, 'epochs': 4.0}


def row(step, top1, ema):
    return {'step': step, 'seconds': 1.0, 'train/loss': 1.0, 'eval/top1': top1, 'eval/ema_top1': ema, 'eval/loss': 0.5}


def test_last_and_best_of_both_weights_over_all_starts(tmp_path):
    results = Results('top1', ABOUT, [row(20, 0.5, 0.7), {'step': 30, 'train/loss': 1.0}, row(40, None, None)])
    results.add(row(60, 0.6, 0.6))
    results.add(row(80, math.nan, 0.7))
    assert results.lines() == ['top1 not finite, best 0.6000 at step 60', 'ema_top1 0.7000, best 0.7000 at step 80']
    results.write(tmp_path, 12.34, finished=True)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['best'] == {'step': 60, 'epoch': 3.0, 'top1': 0.6, 'ema_top1': 0.6, 'loss': 0.5}
    assert summary['best_ema']['step'] == summary['last']['step'] == summary['step'] == 80
    assert summary['last']['top1'] is None and summary['finished'] and summary['seconds'] == 12.3
    assert summary.items() >= ABOUT.items()
    assert [path.name for path in tmp_path.iterdir()] == ['summary.json']


def test_a_run_without_evaluation(tmp_path):
    results = Results('top1', ABOUT)
    results.write(tmp_path, 0.0)
    assert results.lines() == ['no evaluation'] and json.loads((tmp_path / 'summary.json').read_text())['best'] == {}
