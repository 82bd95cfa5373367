"""The contract both sides of a federation hold: schema, features, model, losses, mergeables and messages."""
