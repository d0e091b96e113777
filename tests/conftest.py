"""Tests run on the CPU with eight simulated devices, set before JAX starts."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
# Compiling is most of what tests do, and the code it makes runs for milliseconds.
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
