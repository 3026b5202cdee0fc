"""The worker role: claims rooms, runs their turns, commits."""
