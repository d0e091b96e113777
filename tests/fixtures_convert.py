"""Conversions of a folder of class folders, and what they leave."""

from imagenet_jax import sources
from imagenet_jax.convert import Plan

ROWS = 40
SHARD = 'train-00002-of-00004.array_record'


def plan(tree, output, split='train', **options):
    """To pack a split of the tree."""
    return Plan(sources.create('folder', str(tree), split), {'format': 'folder', 'path': str(tree), 'split': split},
                output, split, **options)


def reopened(output, split='train'):
    """What was packed."""
    return sources.create('array_record', str(output), split)


def files(folder):
    """Name -> content."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}
