"""What the server counts, in Prometheus' text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30


class Metrics:
    """Counters of one server; threads may count together."""

    def __init__(self, max_batch: int, waiting: Callable[[], int]):
        """`waiting` tells how many images there are that have come and are not answered."""
        self.registry = CollectorRegistry()
        given = {'namespace': 'imagenet_jax', 'registry': self.registry}
        self.requests = Counter('requests', 'Requests, by path and status', ['path', 'status'], **given)
        self.images = Counter('images', 'Images, by model and status', ['model', 'status'], **given)
        self.batches = Histogram('batch_images', 'Images of a batch that the device answered', **given, buckets=[
            2**power for power in range(max_batch.bit_length() + 1) if 2**power < 2 * max_batch])
        self.seconds = Histogram('request_seconds', 'From the header of a request to the end of its answer', ['path'],
                                 buckets=_SECONDS, **given)
        Gauge('waiting_images', 'Images that wait for their answer', **given).set_function(waiting)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
