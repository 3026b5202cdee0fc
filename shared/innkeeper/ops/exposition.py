"""Samples as Prometheus reads them; needs prometheus_client (the extra ``metrics``)."""

from collections.abc import Iterable, Iterator
from itertools import accumulate, chain

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from innkeeper.meters import Histogram
from innkeeper.ops.families import Family, Sample


class _Samples(Collector):
    """One scrape's samples."""

    def __init__(self, families: Iterable[Family], samples: Iterable[Sample]) -> None:
        self._families = tuple(families)
        self._samples = tuple(samples)

    def describe(self) -> Iterable[Metric]:
        """Nothing: there are no other collectors of these names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return all families, those without samples too."""
        found = {family.name: _empty(family) for family in self._families}
        for family, labels, value in self._samples:
            _add(found[family.name], labels, value)
        yield from found.values()


def _empty(family: Family) -> Metric:
    if family.kind == "counter":
        return CounterMetricFamily(family.name, family.help, labels=family.labels)
    if family.kind == "gauge":
        return GaugeMetricFamily(family.name, family.help, labels=family.labels)
    return HistogramMetricFamily(family.name, family.help, labels=family.labels)


def _add(metric: Metric, labels: tuple[str, ...], value: float | Histogram) -> None:
    if isinstance(value, Histogram):
        assert isinstance(metric, HistogramMetricFamily)  # noqa: S101 - the family says so
        names = chain(map(floatToGoString, value.bounds), ("+Inf",))
        buckets = list(zip(names, map(float, accumulate(value.counts)), strict=True))
        metric.add_metric(labels, buckets, value.sum)
    else:
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)  # noqa: S101 - as above
        metric.add_metric(labels, value)


def render(families: Iterable[Family], samples: Iterable[Sample], *, accept: str) -> tuple[bytes, str]:
    """Return the text of one scrape and its content type: this process's own figures (CPU, memory, files) with them.

    Args:
        families: All that there may be samples of.
        samples: As of now.
        accept: What the scraper takes, as in HTTP.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(families, samples))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
