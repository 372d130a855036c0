"""The SQL store: connections, tables, dialects and the ledger."""
