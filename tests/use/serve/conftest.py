"""What the tests of the server share."""

import numpy as np
import pytest


@pytest.fixture(scope='module')
def explained():
    """A stand-in for Grad-CAM, which has tests of its own: a slope, drawn as grey."""
    from imagenet_jax.use.serve import service  # here: it needs what may not be installed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, 'GradCAM', lambda classifier, most: lambda pictures, classes: np.linspace(
            0, 1, 4).reshape(1, 2, 2))
        patch.setattr(service, 'overlay', lambda pixels, heat: np.uint8(255 * heat[..., None].repeat(3, 2)))
        yield
