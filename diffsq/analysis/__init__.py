"""What a model has learned and where its sampler fails; no files."""
