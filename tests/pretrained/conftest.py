"""A model hub's cache."""

import shutil

import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny):
    """The hub's cache with one snapshot in it, and no network."""
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    repository, revision = tmp_path / 'models--owner--tiny.a1', '0123456789abcdef0123456789abcdef01234567'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(revision)
    return shutil.copytree(tiny[0], repository / 'snapshots' / revision)
