"""Sources that need no disk: the digits, and synthetic images."""

import numpy as np
from fixtures_sources import create, refused


def test_digits_are_split_without_overlap():
    from sklearn.datasets import load_digits
    train, test = (create('digits', '', split, 10) for split in ('train', 'test'))
    assert (len(train), len(test)) == (1437, 360)
    rows = {source.key(i): source[i] for source in (train, test) for i in range(len(source))}
    assert len(rows) == 1797
    digits = load_digits()
    for i in (0, 1, 5, 1796):
        row = rows[f'digits/{i}']
        assert row['label'] == digits.target[i]
        assert row['image'].shape == (8, 8, 1) and row['image'].dtype == np.uint8
        np.testing.assert_allclose(row['image'][..., 0] / 255, digits.images[i] / 16, atol=0.002)
    assert train.class_names == tuple('0123456789')
    refused('train and test', "'val'", format='digits', split='val', num_classes=10)
    refused('outside 0..8', '10 classes', format='digits', num_classes=9)


def test_synthetic_images_are_a_function_of_the_index():
    source, again = (create('synthetic', '', num_classes=7, num_examples=50) for _ in range(2))
    assert len(source) == 50 and set(source.labels) == set(range(7))
    np.testing.assert_array_equal(source.labels, again.labels)
    assert source.image(3).shape == (8, 8, 3) and source.image(3).dtype == np.uint8
    np.testing.assert_array_equal(source.image(3), again.image(3))
    assert (source.image(3) != source.image(4)).any()


def test_synthetic_is_as_large_as_imagenet():
    assert len(create('synthetic', '', 'train')) == 1_281_167
    assert len(create('synthetic', '', 'validation')) == 50_000
    refused('num_examples', '-1', format='synthetic', num_examples=-1)
