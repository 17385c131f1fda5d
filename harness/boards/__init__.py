"""Leaderboards: what a board admits and shows."""
