"""Rows that come in batches: fits to them, epoch by epoch or as they come."""
