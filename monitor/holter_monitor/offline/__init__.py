"""Logs of earlier runs through the live engine: scan, save as a run, backtest against labels."""
