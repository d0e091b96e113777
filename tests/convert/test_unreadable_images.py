"""Images that cannot be read are named and left out, or stop a conversion."""

import logging

import pytest
from fixtures_convert import plan, reopened
from fixtures_images import class_tree, image_folder, jpeg, png_claiming

from imagenet_jax import sources
from imagenet_jax.convert import convert
from imagenet_jax.errors import UserError


def test_unreadable_images_are_named_and_left_out(tmp_path, caplog):
    tree = class_tree(tmp_path / 'tree', 24)
    broken = {'train/ant/003.JPEG': jpeg()[:-9], 'train/bee/004.JPEG': b'',
              'train/cat/005.JPEG': png_claiming(60000, 60000)}
    image_folder(tree, broken)
    with caplog.at_level(logging.WARNING, 'imagenet_jax'):
        manifest = convert(plan(tree, tmp_path / 'out', shards=3, max_bad_fraction=0.2), workers=2)
    assert [entry['key'] for entry in manifest['skipped']] == ['ant/003.JPEG', 'bee/004.JPEG', 'cat/005.JPEG']
    assert 'Premature end' in manifest['skipped'][0]['reason'] and 'bee/004.JPEG' in caplog.text
    source = reopened(tmp_path / 'out')
    assert len(source) == manifest['examples'] == 21
    before = sources.create('folder', str(tree), 'train')
    kept = [i for i in range(24) if before.key(i) not in {entry['key'] for entry in manifest['skipped']}]
    for i, j in enumerate(kept):
        assert source[i] == before[j]


def test_too_many_unreadable_images_stop_it_each_time(tmp_path):
    tree = image_folder(class_tree(tmp_path / 'tree', 20), {f'train/ant/x{i}.JPEG': b'' for i in range(5)})
    refused = r'5 of 25 images cannot be read, more than --max-bad-fraction .*ant/x0.JPEG'
    for _ in range(2):  # its one shard stands at the second time
        with pytest.raises(UserError, match=refused):
            convert(plan(tree, tmp_path / 'out', shards=1), workers=1)
        assert not (tmp_path / 'out' / 'train.json').exists()
    for how in ({'on_error': 'raise'}, {'max_bad_fraction': 0.1}):
        with pytest.raises(UserError, match=r'5 of 25 .*x0.JPEG'):
            convert(plan(tree, tmp_path / 'out', shards=1, **how))
    assert convert(plan(tree, tmp_path / 'out', shards=1, max_bad_fraction=0.2))['examples'] == 20
    with pytest.raises(UserError, match=r'5 of 25 .*x0.JPEG'):  # finished, but by another limit
        convert(plan(tree, tmp_path / 'out', shards=1))


def test_the_first_unreadable_image_stops_it_where_asked_for(tmp_path):
    tree = image_folder(class_tree(tmp_path / 'tree', 20), {'train/ant/x.JPEG': b''})
    with pytest.raises(UserError, match=r'ant/x.JPEG cannot be read: 0 bytes of no known image format'):
        convert(plan(tree, tmp_path / 'out', shards=1, on_error='raise'), workers=1)
    assert not list((tmp_path / 'out').glob('train*'))


def test_a_shard_may_be_left_with_nothing(tmp_path):
    tree = image_folder(tmp_path / 'tree', {f'train/a/{i}.JPEG': jpeg(i) if i > 1 else b'' for i in range(6)})
    convert(plan(tree, tmp_path / 'out', shards=3, max_bad_fraction=0.5), workers=1)
    source = reopened(tmp_path / 'out')
    assert [source.image(i) for i in range(4)] == [jpeg(i) for i in range(2, 6)]
