"""What the estimators are made of: rows, fits, predictions, decisions."""
