"""`ktfast bench train`: trainings beside plain scripts that do the same work."""
