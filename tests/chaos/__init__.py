"""Live chaos: real processes, real clients, seeded faults, and the history checker's verdict."""
