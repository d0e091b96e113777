"""What a device can compute at most: TFLOP/s of dense products by its kind and dtype, from its maker's data sheet."""

import re

import jax

# By what jax.Device.device_kind begins with, the longest that fits: bfloat16, float16, float32 as convolutions compute
# it (TF32 where there is one), float32 itself. None: it has none of its own. All without structured sparsity, for which
# NVIDIA's sheets of later cards state twice as much.
_TFLOPS = {
    'Tesla V100-SXM2': (None, 125, 15.7, 15.7),       # V100 data sheet
    'Tesla V100-PCIE': (None, 112, 14, 14),           # V100 data sheet
    'Tesla T4': (None, 65, 8.1, 8.1),                 # T4 data sheet
    'NVIDIA A100': (312, 312, 156, 19.5),             # A100 data sheet; 40 and 80 GB, PCIe and SXM alike
    'NVIDIA A10': (125, 125, 62.5, 31.2),             # A10 data sheet
    'NVIDIA L4': (121, 121, 60, 30.3),                # L4 data sheet
    'NVIDIA L40S': (362.05, 362.05, 183, 91.6),             # L40S data sheet
    'NVIDIA H100': (989.4, 989.4, 494.7, 66.9),       # H100 data sheet, SXM: 'NVIDIA H100 80GB HBM3'
    'NVIDIA H100 PCIe': (756, 756, 378, 51.2),        # Hopper architecture paper, table 2
    'NVIDIA H100 NVL': (835.5, 835.5, 417.5, 60),     # H100 data sheet
    'NVIDIA H200': (989.4, 989.4, 494.7, 66.9),       # H200 data sheet, SXM
    'NVIDIA H200 NVL': (835.5, 835.5, 417.5, 60),     # H200 data sheet
    'TPU v4': (275, None, None, None),                # cloud.google.com/tpu/docs/v4; a device is a chip
    'TPU v4 lite': (None, None, None, None),          # not known here, and not 'TPU v4'
    'TPU v5 lite': (197, None, None, None),           # .../v5e
    'TPU v5': (459, None, None, None),                # .../v5p
    'TPU v6 lite': (918, None, None, None),           # .../v6e
}
# Of the numbers above, by dtype; float32 where products are to be exact is the last.
_COLUMN = {'bfloat16': 0, 'float16': 1, 'float32': 2}
_EXACT = ('highest', 'float32', 'F32_F32_F32')


def flops(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of a device at most, a multiply-add being two; None where it is not known, as of CPUs.

    Args:
      device_kind: as JAX has it.
      dtype: bfloat16, float16 or float32; the last is TF32 where the card has it and jax_default_matmul_precision
        asks for no more.
    """
    # 'NVIDIA A10' is no NVIDIA A100, nor an A10G, and of a card that is cut into parts a device is one of them.
    fitting = [name for name in _TFLOPS if re.match(rf'{re.escape(name)}(?![0-9A-Za-z])', device_kind)]
    if not fitting or 'MIG' in device_kind or dtype not in _COLUMN:
        return None
    exact = dtype == 'float32' and jax.config.jax_default_matmul_precision in _EXACT
    tera = _TFLOPS[max(fitting, key=len)][3 if exact else _COLUMN[dtype]]
    return None if tera is None else tera * 1e12
