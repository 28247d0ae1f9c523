"""Structures with weights, latent samples and observables at any temperature."""
