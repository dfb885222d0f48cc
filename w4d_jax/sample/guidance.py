"""Guidance: one velocity field from two, both functions (x, sigma, timestep) -> v.

Three modes, by which field is given as `other`:

- off: none. One forward a step; the default.
- cfg: the network with its robot condition dropped, as it was in a share of the training
  samples. scale 1 is the conditioned field, above 1 strengthens the condition.
- reference: the network with the projected robot latent added twice. The reference means to
  run classifier-free guidance, but its text is ignored and its first forward writes the
  projection into the input that the second one reads, so that it samples v2 + 5 (v1 - v2)
  with v1, v2 under one and two projections: an extrapolation away from a doubled robot
  signal. Its published numbers contain this; nothing else should.
"""


def guided(velocity, other=None, scale: float = 5.0):
    """v = v_other + scale (v_given - v_other); `velocity` itself where other is None."""
    if other is None:
        return velocity

    def combined(x, sigma, timestep):
        against = other(x, sigma, timestep)
        return against + scale * (velocity(x, sigma, timestep) - against)

    return combined
