"""What devices can compute at most."""

import jax
import pytest

from imagenet_jax import peaks


@pytest.mark.parametrize(('kind', 'dtype', 'tera'), [
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 989.4), ('NVIDIA H100 PCIe', 'float16', 756),
    ('NVIDIA H200', 'float32', 494.7), ('NVIDIA A100-SXM4-40GB', 'float32', 156), ('NVIDIA A10', 'bfloat16', 125),
    ('TPU v5 lite', 'bfloat16', 197), ('TPU v4', 'bfloat16', 275), ('TPU v4 lite', 'bfloat16', None),
    ('TPU v5', 'bfloat16', 459), ('Tesla V100-SXM2-16GB', 'bfloat16', None), ('NVIDIA A10G', 'bfloat16', None),
    ('NVIDIA H100 80GB HBM3 MIG 1g.10gb', 'bfloat16', None), ('cpu', 'float32', None), ('TPU v4', 'float32', None)])
def test_a_device_is_known_by_its_kind_or_not_at_all(kind, dtype, tera):
    assert peaks.flops(kind, dtype) == (tera and tera * 1e12)


def test_exact_float32_has_no_tensor_cores():
    with jax.default_matmul_precision('highest'):
        assert peaks.flops('NVIDIA A100-SXM4-80GB', 'float32') == 19.5e12
