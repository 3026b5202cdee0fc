"""What edges and workers import, imported once: the processes of a run are forked from one that has it."""

import importlib

for name in ("uvloop", "harness.chronicle", "innkeeper.cli", "innkeeper_edge.cli", "innkeeper_workers.cli"):
    importlib.import_module(name)
