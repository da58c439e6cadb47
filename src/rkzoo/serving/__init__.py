"""A server: models in processes of their own, behind protocols that other software speaks."""
