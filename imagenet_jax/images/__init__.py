"""What happens to pixels: on the CPU an image at a time (`train_view`, `eval_view`), on the device a batch (`batch`).

Importing the package imports none of it: who decodes needs no augmentation, and only `batch` needs JAX.
"""
