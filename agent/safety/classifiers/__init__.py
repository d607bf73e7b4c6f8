"""What gives pictures or texts labels with scores: services of others, and models that the operator brings."""
