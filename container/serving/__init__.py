"""The serving program of the serving image."""
