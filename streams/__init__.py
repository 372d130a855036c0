"""How it travels: turns, partitions, ledger, publisher, snapshot store and policy reader."""
