"""Plots of a table: score against cost, heat map, forest and loss curves, as Matplotlib figures and files."""
