"""The Latent Thermodynamic Flow and its parts; knows neither trajectories nor OpenMM."""
