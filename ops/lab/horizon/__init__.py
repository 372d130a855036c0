"""What choosing strategies by returns brings, in a simulated world where a strategy baits clicks and loses people."""
