"""What `SoftmaxObjective` is made of: sums over shards, the penalty, curvature, certificate."""
