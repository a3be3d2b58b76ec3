"""Other ways to keep a model encrypted, installed in environments of their own and measured beside ours."""
