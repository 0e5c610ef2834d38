"""What people look at. Drawing only: every figure comes from results."""
