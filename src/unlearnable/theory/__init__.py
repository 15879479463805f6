"""Gaussian mixtures under CUDA and latent models: numbers and figures, no networks."""
