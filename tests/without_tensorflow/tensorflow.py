"""Found in the place of TensorFlow, whose import is a third of what a small run takes."""

raise ImportError('not here')
