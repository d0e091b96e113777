"""ImageNet's names, in all the forms that data sets and libraries have them in."""

import importlib.util
import re
from pathlib import Path

import pytest

from imagenet_jax import class_names

IDS = tuple(class_names.imagenet())


def test_a_thousand_in_the_order_of_published_outputs():
    assert len(IDS) == 1000 and list(IDS) == sorted(IDS) and all(re.fullmatch('n[0-9]{8}', name) for name in IDS)
    assert class_names.shown('n01440764') == 'n01440764 tench' and class_names.shown('ant') == 'ant'
    words = {'n90000001': 'gazelle', 'n01440764': 'fish', 'n00001740': 'entity, thing', 'ant': ''}
    assert [class_names.shown(name, words) for name in (*words, 'n1')] == [
        'n90000001 gazelle', 'n01440764 tench', 'n00001740 entity', 'ant', 'n1']


def test_other_libraries_mean_the_same_classes():
    timm = importlib.util.find_spec('timm')  # its files alone: it imports much that may be broken
    if not timm:
        pytest.skip('no timm')
    folder = Path(timm.origin).parent / 'data' / '_info'
    assert (folder / 'imagenet_synsets.txt').read_text().split() == list(IDS)
    lines = (folder / 'imagenet_synset_to_lemma.txt').read_text().splitlines()
    words = list(map(dict(line.split('\t') for line in lines).get, IDS))
    assert class_names.match(words, IDS) == tuple(range(1000))  # 'crane' is there twice: the order decides
    assert class_names.match(['cardigan', 'Cardigan', 'chain_saw'], IDS) == (474, 264, 491)


def test_first_words_alone_are_told_apart_by_their_order():
    """'maillot' is all the words of class 638 and the first of 639."""
    names = [words.partition(',')[0] for words in class_names.imagenet().values()]
    assert len(set(names)) < 1000
    assert class_names.match(IDS[::-1], names) == tuple(range(1000))[::-1]


@pytest.mark.parametrize('name', ['crane', 'unicorn', 'n99999999'])
def test_what_means_no_one_class_is_refused(name):
    with pytest.raises(class_names.UserError, match=f"none of the 1000 that the model knows, the first: '{name}'"):
        class_names.match([name], IDS)
