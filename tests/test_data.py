"""The section `data`: splits opened together."""

import pytest
from fixtures_images import class_tree, image_folder

from imagenet_jax.data import read
from imagenet_jax.errors import UserError


def test_classes_that_one_split_lacks_are_named(tmp_path):
    image_folder(tmp_path, {f'{split}/{name}/0.jpg': b'' for split, names in (
        ('train', ('ant', 'bee', 'cat')), ('val', ('ant', 'cat', 'dog'))) for name in names})
    with pytest.raises(UserError, match="val lacks 'bee'; train lacks 'dog'"):
        read(format='folder', path=str(tmp_path)).open_both(3, 8)


def test_a_held_out_part_is_the_split_to_evaluate_on(tmp_path):
    data = read(format='folder', path=str(class_tree(tmp_path, 60, '.')), holdout=0.3, eval_split='dev')
    train, test = data.open_both(3, 8)
    keys = [[source.key(i) for i in range(len(source))] for source in (train, test)]
    assert len(set(keys[0] + keys[1])) == 60 and keys[1] == [key for key in sorted(keys[0] + keys[1])
                                                            if key not in keys[0]]
    again = data.open('dev', 3, 8)
    assert [again.key(i) for i in range(len(again))] == keys[1]
