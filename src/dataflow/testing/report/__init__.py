"""What a run was like, for people: a fold over its events (`model`), and its words (`terminal`)."""
