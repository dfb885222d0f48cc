"""Networks as pure functions: parameters in, arrays out."""
