"""What the servers share: problem documents, access, limits, and how they run."""
