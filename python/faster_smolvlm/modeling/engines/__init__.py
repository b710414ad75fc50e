"""What runs a step of the torch model: eager torch, a captured graph, or the native engine."""
