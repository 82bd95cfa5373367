"""What runs at the coordinating centre. Touches aggregates and its own held-out set only."""
