"""From noise to fields: steps, flows, the weighted reverse chain."""
