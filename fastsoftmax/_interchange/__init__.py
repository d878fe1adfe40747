"""Models that travel: in files and pickles, to other packages and back."""
