"""Many couplings, and what they say together."""
