"""A self-hosted, plugin-based GraphQL backend for Social CRM."""

__version__ = "0.1.0"
