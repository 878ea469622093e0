"""The core's graphql."""
