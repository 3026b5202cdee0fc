"""A whole Innkeeper in one process: real edges and workers on fakeredis, virtual time, seeded faults."""
