"""Noise against everything that reads what others have written."""
