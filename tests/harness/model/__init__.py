"""The model test: the atomic acts on a real server under random faults, judged after every step."""
