"""The rephrase detector and the rewrites: trained and judged on public logs, and in simulated worlds."""
