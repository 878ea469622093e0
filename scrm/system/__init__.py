"""The system itself: plugins, consumers, imports, who is asking."""
