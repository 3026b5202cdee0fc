"""What operators see of one process: health, readiness and metrics, on a listener of their own (``--ops-port``)."""

from innkeeper.ops.families import Family, Sample, Source
from innkeeper.ops.settings import NO_OPS, OpsSettings, ops_options

__all__ = ["NO_OPS", "Family", "OpsSettings", "Sample", "Source", "ops_options"]
