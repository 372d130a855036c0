"""What people said outright: rules that come before everything learned."""
