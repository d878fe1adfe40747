"""From an objective and a start to the certified optimum; the problem in other forms on the way."""
