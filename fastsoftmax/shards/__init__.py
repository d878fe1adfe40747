"""Rows on one machine and the sums over them. They know no penalty."""
