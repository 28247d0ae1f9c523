"""Time of trainings and simulations."""
