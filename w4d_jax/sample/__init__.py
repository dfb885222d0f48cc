"""Drawing from a trained model: solvers, guidance, and the two products."""
