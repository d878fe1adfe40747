"""What `FastSoftmax` is made of: its inputs, the running of a fit, what it says of rows."""
