"""Makes the models that the assistant loads."""
