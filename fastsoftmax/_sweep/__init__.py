"""What `FastSoftmaxCV` is made of: many problems over the rows of one X."""
