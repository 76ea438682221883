"""What a run was like, for people: a fold over its events (`model`), its words (`terminal`), its `statements`."""
